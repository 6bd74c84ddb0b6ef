//! The API over real TCP, on every driver. Tests name the requirements that they hold it to (`PUSH-14`); "fifteen" are
//! the things that registries most often get wrong.

#[cfg(test)]
mod blobs;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod chunks;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod deletes;
#[cfg(test)]
mod general;
#[cfg(test)]
mod input;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod referrers;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tags;
#[cfg(test)]
mod types;
#[cfg(test)]
mod uploads;

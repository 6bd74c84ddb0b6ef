//! Each connection to the next server, byte by byte. Who cannot be connected to is passed over.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

pub(crate) struct Balancer {
    pub(crate) address: SocketAddr,
    servers: Arc<Mutex<Vec<Option<SocketAddr>>>>,
}

impl Balancer {
    /// It works until the process ends.
    pub(crate) fn start(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let servers = Arc::new(Mutex::new(servers.into_iter().map(Some).collect()));
        let all = Arc::clone(&servers);
        let turn = Arc::new(AtomicUsize::new(0));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (all, turn) = (Arc::clone(&all), Arc::clone(&turn));
                thread::spawn(move || serve(client, &all, &turn));
            }
        });
        Self { address, servers }
    }

    /// `None`: it is dead, and its port may soon be that of a replica of another test.
    pub(crate) fn replace(&self, number: usize, server: Option<SocketAddr>) {
        self.servers.lock().unwrap()[number] = server;
    }
}

fn serve(client: TcpStream, servers: &Mutex<Vec<Option<SocketAddr>>>, turn: &AtomicUsize) {
    let all: Vec<_> = servers.lock().unwrap().iter().copied().flatten().collect();
    let mut tries = all.iter().map(|_| all[turn.fetch_add(1, Ordering::Relaxed) % all.len()]);
    let Some(server) = tries.find_map(|server| TcpStream::connect(server).ok()) else { return };
    let (from, to) = (client.try_clone(), server.try_clone());
    let (Ok(from), Ok(to)) = (from, to) else { return };
    let upward = thread::spawn(move || pass(from, to));
    pass(server, client);
    // The ends of both directions were passed on, however they came.
    let _ = upward.join();
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

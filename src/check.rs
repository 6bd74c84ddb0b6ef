//! The command that verifies what is stored.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use marina_distribution::{
    config::{Checking, Config},
    registry::check::{Check, News, Share},
    server::Stop,
    store::Key,
};

use super::{NOT_WELL, open_existing_store, open_over};

/// One line for each finding, then what was counted. Asked to stop, it says where to go on.
pub(super) async fn check(config: Config, checking: Checking) -> Result<ExitCode, Box<dyn Error>> {
    let Checking { deep, sample, rate, after, repair } = checking;
    let share = sample.map_or(Some(Share::ALL), |sample| Share::parse(&sample));
    let share = share.ok_or("expected a percentage such as 10%, or a part such as 3/10")?;
    let after = after.map(|key| Key::parse(key).ok_or("expected a key, as an earlier check has printed it"));
    let mut up_to = after.transpose()?;
    let store = open_existing_store(&config).await?;
    let mut check = Check::new(Arc::clone(&store));
    if let Some(after) = up_to.clone() {
        check = check.after(after);
    }
    if deep {
        check = check.deep(share, rate);
    }
    if repair {
        check = check.repair(open_over(&config, store).await?);
    }
    let stop = Stop::on_signals()?;
    let mut out = io::stdout();
    let mut told = Ok(());
    let tell = |news: News<'_>| match news {
        News::Finding(finding) => {
            told = std::mem::replace(&mut told, Ok(())).and_then(|()| writeln!(out, "{finding}"));
        }
        News::Mended(mend) => {
            told = std::mem::replace(&mut told, Ok(())).and_then(|()| writeln!(out, "{mend}"));
        }
        News::UpTo(key, _) => up_to = Some(key.clone()),
    };
    let checked = tokio::select! {
        checked = check.run(tell) => checked.map_err(Into::into),
        () = stop.drain.cancelled() => Err(Box::<dyn Error>::from("stopped")),
    };
    told?;
    match checked {
        Ok(summary) => {
            writeln!(io::stdout(), "{summary}")?;
            Ok(if summary.findings == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) })
        }
        Err(error) => Err(go_on(error, up_to.as_ref())),
    }
}

/// Why it ended early, and how to go on from there.
fn go_on(error: Box<dyn Error>, after: Option<&Key>) -> Box<dyn Error> {
    match after {
        Some(after) => format!("{}; to go on from there: --after {after}", super::Causes(error.as_ref())).into(),
        None => error,
    }
}

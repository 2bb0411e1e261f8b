//! The live view of `belfry status --watch` and `belfry up`: drawn each second, through outages of the collector.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use belfry_common::{clock, error_chain::ErrorChain, model::Timestamp, quic::StreamError};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{interrupted, status::View};
use crate::{
    client::{Client, ClientError},
    credentials::Credentials,
    render::{
        output::Output,
        screen::{Input, Screen},
        style::Style,
        text::{cut, escape},
        units::short_time,
    },
};

const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Fast for fingers, and next to no work.
const INPUT_INTERVAL: Duration = Duration::from_millis(100);
/// A collector that takes longer is as good as gone; its connection may live on.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// What is known at a moment.
#[derive(Debug, Default)]
struct Known {
    view: Option<View>,
    /// Since when there is no answer, and why.
    outage: Option<(Timestamp, String)>,
}

/// Shows the fleet or a node until somebody ends it.
///
/// # Errors
/// A terminal that fails, or a collector that says no for good.
pub(crate) async fn run(credentials: &Credentials, node: Option<String>, output: Output) -> anyhow::Result<ExitCode> {
    let (sender, receiver) = watch::channel(Known::default());
    tokio::select! {
        ended = show(receiver, output) => ended,
        error = fetch(credentials, node, &sender) => Err(error.into()),
    }
}

/// Asks each second, and reconnects. Returns only what asking again will not mend.
async fn fetch(credentials: &Credentials, node: Option<String>, known: &watch::Sender<Known>) -> ClientError {
    let mut ticks = interval(REFRESH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut credentials = credentials.clone();
    let mut client = None;
    loop {
        ticks.tick().await;
        let asked = clock::now();
        match ask(&credentials, node.clone(), &mut client).await {
            Ok(view) => drop(known.send_replace(Known { view: Some(view), outage: None })),
            Err(error) => {
                let again = match client.take() {
                    Some(lost) => lost.again(&error),
                    None => error.is_passing().then(|| credentials.refreshed()),
                };
                let Some(again) = again else { return error };
                credentials = again;
                let why = ErrorChain(&error).to_string();
                known.send_modify(|known| {
                    let since = known.outage.as_ref().map_or(asked, |(since, _)| *since);
                    known.outage = Some((since, why));
                });
            }
        }
    }
}

/// Asks once, on the connection there is or a new one.
async fn ask(
    credentials: &Credentials,
    node: Option<String>,
    client: &mut Option<Client>,
) -> Result<View, ClientError> {
    let connected = match client {
        Some(client) => client,
        None => client.insert(Client::connect_as(credentials).await?),
    };
    connected.keep_fresh().await;
    let answer = timeout(ANSWER_TIMEOUT, View::ask(connected, node)).await;
    answer.unwrap_or_else(|_| Err(StreamError::Timeout(ANSWER_TIMEOUT).into()))
}

/// Draws what is known whenever it changes, until somebody ends it.
async fn show(mut known: watch::Receiver<Known>, output: Output) -> anyhow::Result<ExitCode> {
    let mut screen = Screen::open(output).context("failed to take over the terminal")?;
    let mut input = interval(INPUT_INTERVAL);
    let stop = interrupted();
    tokio::pin!(stop);
    draw(&mut screen, &known.borrow_and_update(), &output)?;
    loop {
        tokio::select! {
            biased;
            () = &mut stop => return Ok(ExitCode::SUCCESS),
            _ = input.tick() => match screen.input().context("failed to read from the terminal")? {
                Some(Input::Quit) => return Ok(ExitCode::SUCCESS),
                Some(Input::Resized) => draw(&mut screen, &known.borrow(), &output)?,
                None => {}
            },
            changed = known.changed() => match changed {
                Ok(()) => draw(&mut screen, &known.borrow_and_update(), &output)?,
                // Whoever asks has an error to tell.
                Err(_) => sleep(REFRESH_INTERVAL).await,
            },
        }
    }
}

fn draw(screen: &mut Screen, known: &Known, output: &Output) -> anyhow::Result<()> {
    let look = output.look();
    let mut text = String::new();
    if let Some((since, why)) = &known.outage {
        let words = format!("collector unreachable since {}: {}", short_time(*since), escape(why));
        let words = cut(&words, look.width.unwrap_or(usize::MAX));
        text.push_str(&Style::Bad.paint(&words, look.is_colored));
        text.push('\n');
    }
    match (&known.view, &known.outage) {
        (Some(view), _) => text.push_str(&view.render(&look)),
        (None, None) => text.push_str("connecting …\n"),
        (None, Some(_)) => {}
    }
    screen.draw(&text, "q quits").context("failed to draw on the terminal")
}

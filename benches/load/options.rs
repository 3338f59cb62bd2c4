//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub const USAGE: &str = "usage: cargo bench --bench load -- [--quick] [--runs N] [--seconds S] [--workers N[,N]] \
                         [--case WORD]… [--rate QPS] [--generator CPU] [--holdfast PATH] [--peers]";

/// A look rather than a measurement: a minute instead of six.
const QUICK: (usize, Duration) = (3, Duration::from_millis(400));

/// What this process is to do.
pub enum Task {
    Measure(Options),
    Echo {
        address: SocketAddr,
        workers: usize,
    },
    /// Be a holdfast whose records change and whose cache is saved while it serves.
    Busy {
        address: SocketAddr,
        home: PathBuf,
    },
    /// Become another program on these processors.
    Pinned {
        processors: Vec<usize>,
        command: Vec<String>,
    },
}

pub struct Options {
    /// Runs that the medians are taken over.
    pub runs: usize,
    pub time: Duration,
    /// Processors of the subject, for each table.
    pub workers: Vec<usize>,
    /// Words of which a case's title has to contain one.
    pub cases: Vec<String>,
    /// Queries a second of the open loop; half of what the echo does unless given.
    pub rate: Option<f64>,
    pub holdfast: String,
    /// The processor of the generator; the last one unless given.
    pub generator: Option<usize>,
    /// Also measure other name servers, as far as they are installed.
    pub peers: bool,
}

impl Options {
    pub fn read(arguments: impl Iterator<Item = String>) -> Result<Task, String> {
        let mut options = Self {
            runs: 5,
            time: Duration::from_millis(800),
            workers: vec![1, 2],
            cases: Vec::new(),
            rate: None,
            holdfast: env!("CARGO_BIN_EXE_holdfast").to_owned(),
            generator: None,
            peers: false,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => (options.runs, options.time) = QUICK,
                "--runs" => options.runs = number(&value()?)?,
                "--seconds" => options.time = Duration::from_secs_f64(number(&value()?)?),
                "--workers" => options.workers = value()?.split(',').map(number).collect::<Result<_, _>>()?,
                "--case" => options.cases.push(value()?),
                "--rate" => options.rate = Some(number(&value()?)?),
                "--holdfast" => options.holdfast = value()?,
                "--generator" => options.generator = Some(number(&value()?)?),
                "--peers" => options.peers = true,
                // Cargo says so.
                "--bench" => {}
                "echo" => return Ok(Task::Echo { address: number(&value()?)?, workers: number(&value()?)? }),
                "busy" => return Ok(Task::Busy { address: number(&value()?)?, home: number(&value()?)? }),
                "pinned" => {
                    let processors = value()?.split(',').map(number).collect::<Result<_, _>>()?;
                    return Ok(Task::Pinned { processors, command: arguments.collect() });
                }
                other => return Err(format!("there is no {other}")),
            }
        }
        Ok(Task::Measure(options))
    }

    pub fn wants(&self, title: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|word| title.contains(word.as_str()))
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number or address"))
}

//! One invocation: its runs one after the other, each against a server of its own, and the results.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::request::{MeasureRequest, ResultFiles, ServerSource};
use crate::error::LoadError;
use crate::idle;
use crate::latency::Latencies;
use crate::machine::Machine;
use crate::measurement::Measurement;
use crate::mesh::{MeshFigures, MeshPlan, sparing};
use crate::nodes::Nodes;
use crate::pinning;
use crate::quantity::Rate;
use crate::report::{Conditions, Cores, RunRecord};
use crate::run::{self, Progress, RunOptions};
use crate::server::{Server, ServerOptions};
use crate::table;
use crate::workload::{Case, Overrides, Workload};

/// Measures what is asked for, prints it, and says whether every run was valid.
pub(crate) fn measure(request: &MeasureRequest) -> Result<bool, LoadError> {
    // The server's core is watched like the load's: the meter's own wake-ups change what a parked
    // server costs, so that it has to be there for every server or for none.
    let allowed = pinning::allowed_cores();
    let all_if_none = |cores: &[usize]| match cores {
        [] => allowed.clone(),
        cores => cores.to_vec(),
    };
    let server_cores = match &request.source {
        ServerSource::Spawn(options) => all_if_none(&options.cores),
        ServerSource::Running { pid, .. } => {
            pid.and_then(pinning::pinned_core).into_iter().collect()
        }
    };
    let load_cores = all_if_none(&request.load_cores);
    let mut watched_cores: Vec<usize> = server_cores.iter().chain(&load_cores).copied().collect();
    watched_cores.sort_unstable();
    watched_cores.dedup();
    let ends = match (server_cores.as_slice(), load_cores.as_slice()) {
        (&[server], &[load]) if server != load => Some([server, load]),
        (&[first, second], _) => Some([first, second]),
        _ => None,
    };
    let mut session = Session {
        runs: Runs {
            options: RunOptions {
                target: request.target,
                warmup: request.warmup,
                duration: request.duration,
                watched_cores,
                ends,
            },
            conditions: Conditions {
                cores: Cores::new(server_cores, load_cores.clone()),
                shards: request.source.shards(),
                machine: Machine::look(allowed.len()),
            },
            count: 0,
        },
        results: Results::open(&request.files)?,
        request,
    };
    // Every thread started from here on stays on these cores; a spawned server moves to its own.
    pinning::pin_to(&load_cores)?;
    session.run_all()?;
    session.results.finish()
}

struct Session<'a> {
    request: &'a MeasureRequest,
    runs: Runs,
    results: Results,
}

impl Session<'_> {
    fn run_all(&mut self) -> Result<(), LoadError> {
        let request = self.request;
        if request.capacity_shares.is_empty() {
            return self.run_cases(request.workload, &request.overrides);
        }
        let capacity = Overrides { rate: Some(Rate::Max), ..request.overrides.clone() };
        self.run_cases(Workload::T1, &capacity)?;
        let measured = self.results.records.last();
        let per_second = measured.map_or(0.0, |run| run.received_per_s);
        for share in &request.capacity_shares {
            let rate = (per_second * *share as f64 / 100.0) as u64;
            let at_share =
                Overrides { rate: Some(Rate::PerSecond(rate.max(1))), ..request.overrides.clone() };
            self.run_cases(request.workload, &at_share)?;
        }
        Ok(())
    }

    fn run_cases(&mut self, workload: Workload, overrides: &Overrides) -> Result<(), LoadError> {
        let cases = workload.cases(overrides);
        for (at, case) in cases.iter().enumerate() {
            let (mut record, latencies) = if workload.is_meshed() {
                self.runs.run_mesh(workload, case, &self.mesh_plan(workload, case, at)?)?
            } else {
                let mut nodes = Nodes::one(self.server(workload, case)?);
                self.runs.run(workload, case, &mut nodes)?
            };
            if let (true, Some(without)) = (case.shape.stalled > 0, self.results.records.last()) {
                record.compare_with(without);
            }
            if let (Some(_), Some(quiet)) =
                (case.flood, self.results.records.iter().rfind(|run| run.flood.is_none()))
            {
                record.compare_with_quiet(quiet);
            }
            if let Some(first) =
                self.results.records.iter().find(|run| record.is_stated_against(run))
            {
                record.state_against(first);
            }
            self.results.add(record, &latencies, cases.len() > 1 || at > 0)?;
        }
        Ok(())
    }

    /// A server for the next run: a new one, so that no run inherits another's memory and state.
    fn server(&self, workload: Workload, case: &Case) -> Result<Server, LoadError> {
        match &self.request.source {
            ServerSource::Spawn(options) => {
                let connections_max =
                    (workload == Workload::S).then(|| idle::connections_wanted(case.shape.fan_out));
                let bounded = workload == Workload::B;
                let options = ServerOptions { connections_max, bounded, ..options.clone() };
                Server::spawn(self.request.target, &options)
            }
            ServerSource::Running { addresses, pid } => {
                Ok(Server::running(addresses.clone(), *pid))
            }
        }
    }

    /// Nodes for the next run.
    fn mesh_plan(&self, workload: Workload, case: &Case, at: usize) -> Result<MeshPlan, LoadError> {
        let ServerSource::Spawn(options) = &self.request.source else {
            return Err(LoadError::Usage("a mesh is started here, not found elsewhere".to_owned()));
        };
        let mut options = ServerOptions {
            cores: self.runs.conditions.cores.server_cores.clone(),
            ..options.clone()
        };
        // Nodes that idle share the cores there are unless they were given some.
        let mut one_core_each = true;
        if workload == Workload::C {
            one_core_each = self.request.has_server_cores();
            options = sparing(&options);
        }
        Ok(MeshPlan {
            target: self.request.target,
            nodes: case.nodes,
            meeting: self.request.meeting,
            cluster: format!("loadgen-{}-{at}", std::process::id()),
            options,
            one_core_each,
        })
    }
}

/// Does runs, and knows what they have in common.
pub(crate) struct Runs {
    /// How to run.
    pub(crate) options: RunOptions,
    /// Where, and on what.
    pub(crate) conditions: Conditions,
    /// Runs done, for their names.
    pub(crate) count: u64,
}

impl Runs {
    /// Does one run, with a progress bar where somebody looks.
    pub(crate) fn run(
        &mut self,
        workload: Workload,
        case: &Case,
        nodes: &mut Nodes,
    ) -> Result<(RunRecord, Latencies), LoadError> {
        let measurement = self.measure(workload, case, nodes)?;
        let record = RunRecord::new(workload, case, &self.options, &measurement, &self.conditions);
        Ok((record, measurement.latencies))
    }

    /// Starts nodes, waits until each routes to each other one, and does one run with them, unless that
    /// was all there is to measure.
    fn run_mesh(
        &mut self,
        workload: Workload,
        case: &Case,
        plan: &MeshPlan,
    ) -> Result<(RunRecord, Latencies), LoadError> {
        let bar = progress_bar(&format!("{}: nodes find each other", self.text(workload, case)));
        let (mut nodes, convergence) =
            plan.converge(case.transport, &mut |share| bar.set_position((share * 1_000.0) as u64))?;
        bar.finish_and_clear();
        let measurement = if workload == Workload::C {
            convergence.into_measurement(&nodes)
        } else if let Some(missing) = convergence.missing {
            return Err(LoadError::Mesh(missing));
        } else {
            let measurement = self.measure(workload, case, &mut nodes)?;
            let subscribe_to_first_ms = measurement.mesh.subscribe_to_first_ms;
            let mesh = MeshFigures { subscribe_to_first_ms, ..convergence.figures };
            Measurement { mesh, ..measurement }
        };
        let record = RunRecord::new(workload, case, &self.options, &measurement, &self.conditions);
        Ok((record, measurement.latencies))
    }

    fn text(&self, workload: Workload, case: &Case) -> String {
        format!("{} {} {}", self.options.target.name(), workload.name(), case.label)
    }

    fn measure(
        &mut self,
        workload: Workload,
        case: &Case,
        nodes: &mut Nodes,
    ) -> Result<Measurement, LoadError> {
        self.count += 1;
        let name = format!("loadgen/{}/{}", std::process::id(), self.count);
        let text = self.text(workload, case);
        let bar = progress_bar(&text);
        let target = self.options.target;
        let measurement = if workload == Workload::S {
            let mut watch = |share: f64| bar.set_position((share * 1_000.0) as u64);
            idle::measure(case, target, &nodes[0], &name, &mut watch)
        } else {
            run::measure(case, &self.options, nodes, &name, &mut |progress| {
                let share = match progress {
                    Progress::Bound(share) => {
                        bar.set_message(format!("{text}: binding topics"));
                        share
                    }
                    Progress::Passed(share) => {
                        bar.set_message(text.clone());
                        share
                    }
                };
                bar.set_position((share * 1_000.0) as u64);
            })
        };
        bar.finish_and_clear();
        measurement
    }
}

fn progress_bar(text: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(1_000).with_message(text.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} % {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// Takes results as they come, so that an interrupted session keeps those it has.
struct Results {
    records: Vec<RunRecord>,
    json: Option<JsonLines>,
    hgrm: Option<PathBuf>,
}

struct JsonLines {
    path: PathBuf,
    out: Box<dyn Write>,
}

impl Results {
    fn open(files: &ResultFiles) -> Result<Self, LoadError> {
        let json = match &files.json {
            None => None,
            Some(path) if path.as_os_str() == "-" => {
                Some(JsonLines { path: "standard output".into(), out: Box::new(io::stdout()) })
            }
            Some(path) => Some(JsonLines {
                path: path.clone(),
                out: Box::new(File::create(path).map_err(|source| cannot_write(path, source))?),
            }),
        };
        Ok(Self { records: Vec::new(), json, hgrm: files.hgrm.clone() })
    }

    fn add(
        &mut self,
        record: RunRecord,
        latencies: &Latencies,
        is_one_of_several: bool,
    ) -> Result<(), LoadError> {
        if let Some(json) = &mut self.json {
            record
                .write_json(&mut json.out)
                .and_then(|()| json.out.flush())
                .map_err(|source| cannot_write(&json.path, source))?;
        }
        if let Some(path) = &self.hgrm {
            let path = if is_one_of_several {
                numbered(path, self.records.len() + 1)
            } else {
                path.clone()
            };
            File::create(&path)
                .and_then(|file| {
                    let mut out = BufWriter::new(file);
                    latencies.write_hgrm(&mut out)?;
                    out.flush()
                })
                .map_err(|source| cannot_write(&path, source))?;
        }
        self.records.push(record);
        Ok(())
    }

    /// Prints the table, and says whether every run was valid. Standard output is left to the JSON
    /// if that goes there.
    fn finish(self) -> Result<bool, LoadError> {
        let text = table::render(&self.records);
        let json_on_stdout =
            self.json.is_some_and(|json| json.path.as_os_str() == "standard output");
        let written = if json_on_stdout {
            io::stderr().write_all(text.as_bytes())
        } else {
            io::stdout().write_all(text.as_bytes())
        };
        written.map_err(|source| cannot_write(Path::new("the table"), source))?;
        Ok(self.records.iter().all(|record| record.valid))
    }
}

/// `latency.hgrm` → `latency-2.hgrm`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{number}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{number}"),
    };
    path.with_file_name(name)
}

fn cannot_write(path: &Path, source: io::Error) -> LoadError {
    LoadError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_several_runs_are_numbered_before_their_extension() {
        let numbered = |path: &str| numbered(Path::new(path), 2);
        assert_eq!(numbered("a/latency.hgrm"), Path::new("a/latency-2.hgrm"));
        assert_eq!(numbered("latency"), Path::new("latency-2"));
    }
}

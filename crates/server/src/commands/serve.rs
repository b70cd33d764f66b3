//! `waft serve`: from the command line to a runtime; the rest is in [`crate::house::run`].

use super::Failure;
use crate::cli::Serve;
use crate::systemd::Inherited;
use crate::{house, log};

/// So many tasks have their turn between two looks at the sockets, and between two at what other threads have woken: of those
/// that do a turn of work each ([`house`]) that is a millisecond or so. (Tokio's own are 61, and as many as have lately
/// filled 0.2 ms: too many when what was idle is busy at once.)
const TURNS_TO_SOCKETS: u32 = 16;
const TURNS_TO_OTHERS: u32 = 8;

pub fn serve(arguments: &Serve) -> Result<(), Failure> {
    // Before there are threads: it reads and clears the environment.
    let inherited = Inherited::take();
    let config = arguments.sources().load()?;
    log::start(&config.log);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().thread_name("waft").event_interval(TURNS_TO_SOCKETS).global_queue_interval(TURNS_TO_OTHERS);
    let runtime = runtime.build().map_err(|error| {
        Failure::Said(format!("the runtime cannot start: {error}\nlook at the limits of threads and files (ulimit -a)"))
    })?;
    runtime.block_on(house::run::serve(config, inherited)).map_err(Failure::Said)
}

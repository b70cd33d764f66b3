//! `waft serve`: from the command line to a runtime; the rest is in [`crate::house::run`].

use super::Failure;
use crate::cli::Serve;
use crate::systemd::Inherited;
use crate::{house, log};

pub fn serve(arguments: &Serve) -> Result<(), Failure> {
    // Before there are threads: it reads and clears the environment.
    let inherited = Inherited::take();
    let config = arguments.sources().load()?;
    log::start(&config.log);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("waft").build().map_err(|error| {
            Failure::Said(format!(
                "the runtime cannot start: {error}\nlook at the limits of threads and files (ulimit -a)"
            ))
        })?;
    runtime.block_on(house::run::serve(config, inherited)).map_err(Failure::Said)
}

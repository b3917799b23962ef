//! SIGINT and SIGTERM: the first ends a run with what it has measured; one that comes later ends the process.
//!
//! `timeout` sends its signal to the process and to its group, and a terminal's Ctrl-C goes to both as well: two
//! signals within a moment are one wish. They count only while a run goes on; before it nothing would be
//! lost, so they keep their usual effect.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Signals this soon after the first are the same wish.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Whether someone wants the run to end.
#[derive(Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes both signals from now on.
    pub(crate) fn listen() -> io::Result<Self> {
        let wanted = Arc::new(AtomicBool::new(false));
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let raised = Arc::clone(&wanted);
        let listener = std::thread::Builder::new().name("signals".to_owned());
        listener.spawn(move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever() {
                raised.store(true, Ordering::Relaxed);
                if first.get_or_insert_with(Instant::now).elapsed() >= SAME_WISH {
                    // What cannot be ended as its signal says goes on to its own end.
                    let _ = emulate_default_handler(signal);
                }
            }
        })?;
        Ok(Self(wanted))
    }

    /// Whether one has come.
    pub(crate) fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

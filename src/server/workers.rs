//! The threads that serve requests: one runtime with several, or one thread with its own.

use std::{io, thread};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};

/// The workers' runtime. Dropping it ends what still runs there.
pub struct Workers {
    handle: Handle,
    kind: Option<Kind>,
}

enum Kind {
    Many(Runtime),
    /// A runtime for one thread spares what several need to share work.
    One {
        stop: oneshot::Sender<()>,
        thread: thread::JoinHandle<()>,
    },
}

impl Workers {
    pub fn start(threads: usize) -> io::Result<Self> {
        match threads {
            0 | 1 => one(),
            many => {
                let mut builder = Builder::new_multi_thread();
                let runtime = builder.worker_threads(many).thread_name("worker").enable_all().build()?;
                Ok(Self { handle: runtime.handle().clone(), kind: Some(Kind::Many(runtime)) })
            }
        }
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        match self.kind.take() {
            Some(Kind::Many(runtime)) => runtime.shutdown_background(),
            Some(Kind::One { stop, thread }) => {
                drop(stop);
                // It ends as soon as it is polled; a panic there has been reported.
                let _ = thread.join();
            }
            None => {}
        }
    }
}

fn one() -> io::Result<Workers> {
    let runtime = Builder::new_current_thread().thread_name("worker").enable_all().build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = thread::Builder::new().name("worker".into()).spawn(move || {
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    })?;
    Ok(Workers { handle, kind: Some(Kind::One { stop, thread }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_or_several_run_what_they_are_given() {
        for threads in [1, 2] {
            let workers = Workers::start(threads).unwrap();
            let (done, finished) = std::sync::mpsc::channel();
            workers.handle().spawn(async move { done.send(7).unwrap() });
            assert_eq!(finished.recv().unwrap(), 7);
        }
    }
}

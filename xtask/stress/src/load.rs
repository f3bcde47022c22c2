//! The threads of each CPU.

#![expect(unsafe_code, reason = "memory is mapped and written by its address")]

use std::process::Command;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::run::Run;

/// Bytes that are mapped at a time.
const MAPPED: usize = 256 << 10;
const PAGE: usize = 4096;

fn failed(what: &'static str) -> impl Fn(rustix::io::Errno) -> String {
    move |error| format!("{what}: {error}")
}

/// Has this thread run on `cpu` alone.
fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(failed("sched_setaffinity"))
}

/// Maps memory, touches each page and unmaps it: all threads share one address space, so every CPU has to forget it.
pub fn map(run: &Run, cpu: usize, done: &AtomicU64) -> Result<(), String> {
    pin(cpu)?;
    while !run.is_over() {
        let mark = done.fetch_add(1, Ordering::Relaxed) as usize;
        // SAFETY: the mapping is new, and nothing else has its address.
        unsafe {
            let rights = ProtFlags::READ | ProtFlags::WRITE;
            let start =
                mmap_anonymous(null_mut(), MAPPED, rights, MapFlags::PRIVATE).map_err(failed("mmap"))?;
            let page = |index: usize| start.cast::<usize>().wrapping_byte_add(index * PAGE);
            let pages = 0..MAPPED / PAGE;
            let fresh = pages.clone().all(|index| page(index).read_volatile() == 0);
            pages.clone().for_each(|index| page(index).write_volatile(mark ^ index));
            let kept = pages.clone().all(|index| page(index).read_volatile() == mark ^ index);
            munmap(start, MAPPED).map_err(failed("munmap"))?;
            if !fresh || !kept {
                return Err(format!("CPU {cpu} found a page of another mapping"));
            }
        }
    }
    Ok(())
}

/// Goes from CPU to CPU.
pub fn migrate(run: &Run, mut cpu: usize, done: &AtomicU64) -> Result<(), String> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    while !run.is_over() {
        cpu = (cpu + 1) % cpus;
        pin(cpu)?;
        done.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
    }
    Ok(())
}

/// Sleeps, and looks at the clock, which no CPU may see behind where another has seen it.
pub fn sleep(run: &Run, cpu: usize, done: &AtomicU64) -> Result<(), String> {
    static LATEST: AtomicU64 = AtomicU64::new(0);
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    pin(cpu)?;
    let start = *START.get_or_init(Instant::now);
    while !run.is_over() {
        let before = Instant::now();
        thread::sleep(Duration::from_millis(1));
        if before.elapsed() < Duration::from_millis(1) {
            return Err(format!("CPU {cpu} woke up too early"));
        }
        let latest = LATEST.load(Ordering::SeqCst);
        let now = start.elapsed().as_nanos() as u64;
        if now < latest {
            return Err(format!("the clock of CPU {cpu} is {} ns behind", latest - now));
        }
        LATEST.fetch_max(now, Ordering::SeqCst);
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Throws a ball to the next CPU and back.
pub fn wake(run: &Run, cpu: usize, done: &AtomicU64) -> Result<(), String> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let (to_other, from_here) = mpsc::channel::<u64>();
    let (to_here, from_other) = mpsc::channel::<u64>();
    thread::scope(|scope| {
        let other = scope.spawn(move || -> Result<(), String> {
            pin((cpu + 1) % cpus)?;
            while let Ok(ball) = from_here.recv() {
                let _ = to_here.send(ball + 1);
            }
            Ok(())
        });
        let throw = || -> Result<(), String> {
            pin(cpu)?;
            while !run.is_over() {
                let ball = done.fetch_add(1, Ordering::Relaxed);
                to_other.send(ball).map_err(|_| "the other thread is gone".to_owned())?;
                // A wake-up that is lost would be waited for in vain.
                match from_other.recv_timeout(Duration::from_secs(60)) {
                    Ok(back) if back == ball + 1 => {}
                    Ok(back) => return Err(format!("CPU {cpu} threw {ball} and caught {back}")),
                    Err(RecvTimeoutError::Timeout) => return Err(format!("CPU {cpu} was not woken up")),
                    Err(RecvTimeoutError::Disconnected) => return Err("the other thread is gone".to_owned()),
                }
            }
            Ok(())
        };
        let thrown = throw();
        drop(to_other);
        other.join().map_err(|_| "a thread panicked".to_owned())??;
        thrown
    })
}

/// Starts programs, one after the other.
pub fn spawn(run: &Run, done: &AtomicU64) -> Result<(), String> {
    while !run.is_over() {
        let number = done.fetch_add(1, Ordering::Relaxed) % 100;
        let script = format!("exit {number}");
        let status =
            Command::new("sh").args(["-c", &script]).status().map_err(|error| format!("sh: {error}"))?;
        if status.code() != Some(number as i32) {
            return Err(format!("a process should have ended with {number} and did with {status}"));
        }
    }
    Ok(())
}

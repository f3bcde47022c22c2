//! Load for CPUs: memory, migration, timers, wake-ups and processes.

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

/// The number of bytes that are mapped at a time.
const MAPPED: usize = 256 << 10;
const PAGE: usize = 4096;

fn failed(what: &'static str) -> impl Fn(rustix::io::Errno) -> String {
    move |error| format!("{what}: {error}")
}

/// Makes this thread run on `cpu` only.
fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(failed("sched_setaffinity"))
}

/// Maps memory, accesses each page and unmaps it. All threads share one address space, so every CPU has to flush the
/// pages from its TLB.
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

/// Moves this thread from CPU to CPU.
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

/// Sleeps and reads the clock, which must never be behind the time that another CPU has read before.
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

/// Sends a number to a thread on the next CPU and waits for the answer, again and again.
pub fn wake(run: &Run, cpu: usize, done: &AtomicU64) -> Result<(), String> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let (to_other, from_here) = mpsc::channel::<u64>();
    let (to_here, from_other) = mpsc::channel::<u64>();
    thread::scope(|scope| {
        let other = scope.spawn(move || -> Result<(), String> {
            pin((cpu + 1) % cpus)?;
            while let Ok(number) = from_here.recv() {
                let _ = to_here.send(number + 1);
            }
            Ok(())
        });
        let exchange = || -> Result<(), String> {
            pin(cpu)?;
            while !run.is_over() {
                let number = done.fetch_add(1, Ordering::Relaxed);
                to_other.send(number).map_err(|_| "the other thread has ended".to_owned())?;
                // If a wake-up is lost, the answer never comes.
                match from_other.recv_timeout(Duration::from_secs(60)) {
                    Ok(answer) if answer == number + 1 => {}
                    Ok(answer) => return Err(format!("CPU {cpu} sent {number} and received {answer}")),
                    Err(RecvTimeoutError::Timeout) => return Err(format!("CPU {cpu} was not woken up")),
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err("the other thread has ended".to_owned());
                    }
                }
            }
            Ok(())
        };
        let result = exchange();
        drop(to_other);
        other.join().map_err(|_| "a thread panicked".to_owned())??;
        result
    })
}

/// Starts programs, one after the other, and checks their exit codes.
pub fn spawn(run: &Run, done: &AtomicU64) -> Result<(), String> {
    while !run.is_over() {
        let number = done.fetch_add(1, Ordering::Relaxed) % 100;
        let script = format!("exit {number}");
        let status =
            Command::new("sh").args(["-c", &script]).status().map_err(|error| format!("sh: {error}"))?;
        if status.code() != Some(number as i32) {
            return Err(format!("a process should have ended with {number}, and ended with {status}"));
        }
    }
    Ok(())
}

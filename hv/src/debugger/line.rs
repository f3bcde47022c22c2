//! The serial line to gdb. The guest does not reach its UART.

#![expect(unsafe_code, reason = "the UART's ports are claimed here")]

use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::{FifoTriggerLevel, IER, LSR};
use uart_16550::{BaudRate, Config, Uart16550};
use vidar_core::console::serial::PATIENCE;
use vidar_core::debugger::desk;
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::x86::icr::{Destination, Message};

use crate::arch::apic;

/// The line at one UART, and the CPUs that are called by NMIs.
pub struct Line {
    uart: Mutex<Uart16550<PioBackend>>,
    /// The per-CPU blocks of the CPUs that an NMI makes exit, by their numbers.
    pub called: &'static [&'static PerCpu],
    /// True if the UART's interrupt comes to the boot CPU as an NMI.
    pub interrupts: bool,
    /// True while the UART interrupts for what it receives.
    listens: AtomicBool,
}

impl Line {
    /// Opens the line whose UART is at I/O port `port`: 115,200 baud, 8 data bits, no parity. Returns `None` if no UART
    /// works there.
    pub fn open(port: u16) -> Option<Self> {
        // SAFETY: by convention the ports belong to a UART, and the caller has made sure that the log does not use
        // them.
        let mut uart = unsafe { Uart16550::new_port(port) }.ok()?;
        if !uart.check_present() {
            return None;
        }
        // The UART interrupts at the first byte. It has room for 16, and the CPUs take a while to stop.
        let fifo_trigger_level = Some(FifoTriggerLevel::One);
        let config = Config { baud_rate: BaudRate::Baud115200, fifo_trigger_level, ..Config::default() };
        uart.init(config).ok()?;
        Some(Self { uart: Mutex::new(uart), called: &[], interrupts: false, listens: AtomicBool::new(false) })
    }
}

impl desk::Line for Line {
    fn listen(&self) {
        if self.interrupts {
            self.listens.store(true, Ordering::SeqCst);
            self.uart.lock().enable_interrupts(IER::DATA_READY);
        }
    }

    /// An NMI may have come, or several: QEMU sends one for each byte.
    fn silence(&self) {
        if self.listens.swap(false, Ordering::SeqCst) {
            self.uart.lock().disable_interrupts(IER::DATA_READY);
            if let Some(boot) = self.called.first() {
                boot.ring();
            }
        }
    }

    fn listens(&self) -> bool {
        !self.interrupts || self.listens.load(Ordering::SeqCst)
    }

    /// If the line is silent, another CPU has taken what was received.
    fn rings(&self) -> bool {
        self.interrupts && (self.is_ready() || !self.listens())
    }

    fn is_ready(&self) -> bool {
        self.uart.lock().lsr().contains(LSR::DATA_READY)
    }

    fn receive(&self) -> Option<u8> {
        self.uart.lock().try_receive_byte().ok()
    }

    fn send(&self, byte: u8) {
        let mut uart = self.uart.lock();
        for _ in 0..PATIENCE {
            if uart.try_send_byte(byte).is_ok() {
                return;
            }
        }
    }

    fn call(&self, index: usize) {
        if let Some(cpu) = self.called.get(index) {
            cpu.call();
            apic::send(Message::Nmi, Destination::Physical(cpu.apic_id));
        }
    }
}

//! The serial line to gdb, whose UART is polled.

#![expect(unsafe_code, reason = "the UART's ports are claimed here")]

use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};
use vidar_core::console::serial::{self, PATIENCE};
use vidar_core::debugger::desk;
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::x86::icr::{Destination, Message};
use x86_64::instructions::port::Port;

use crate::arch::apic;

/// The interrupt enable register that has the UART interrupt when it has received something.
const RECEIVED: u8 = 1;

/// The bit of the interrupt identification register that is clear while an interrupt is pending.
const NOT_PENDING: u8 = 1;

/// The line at one UART, and the CPUs that are called by NMIs.
pub struct Line {
    uart: Mutex<Uart16550<PioBackend>>,
    /// The first I/O port of the UART.
    base: u16,
    /// A byte that was in the UART when Vidar took it over from the guest.
    kept: Mutex<Option<u8>>,
    /// The per-CPU blocks of the CPUs that an NMI makes exit, by their numbers.
    pub called: &'static [&'static PerCpu],
    /// True if the UART's interrupt comes to the boot CPU as an NMI.
    pub interrupts: bool,
    /// True while the UART's interrupts are off because Vidar has switched them off.
    silenced: AtomicBool,
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
        uart.init(Config { baud_rate: BaudRate::Baud115200, ..Config::default() }).ok()?;
        Some(Self {
            uart: Mutex::new(uart),
            base: port,
            kept: Mutex::new(None),
            called: &[],
            interrupts: false,
            silenced: AtomicBool::new(true),
        })
    }
}

impl Line {
    /// Returns true if the UART is as Vidar has left it to wait for gdb: it interrupts for what it receives, and for
    /// nothing else.
    fn is_armed(&self) -> bool {
        let port = |register: u16| Port::<u8>::new(self.base + register);
        // SAFETY: the ports are those of the UART. Reading these registers has no effect on what has been received.
        let (enabled, identification) = unsafe { (port(1).read(), port(2).read()) };
        enabled == RECEIVED && identification == serial::FIFOS | NOT_PENDING
    }

    /// Switches the UART's interrupts off. If they were on, an NMI may come, or a further one: QEMU sends one for each
    /// byte.
    fn silence(&self) {
        let mut interrupts = Port::<u8>::new(self.base + 1);
        // SAFETY: the port is the UART's, which is Vidar's as long as the guest is stopped. If the guest has made it
        // another register, `take_over` sets it up anew.
        unsafe {
            if !self.interrupts || interrupts.read() != RECEIVED {
                return;
            }
            interrupts.write(0);
        }
        self.silenced.store(true, Ordering::SeqCst);
        if let Some(boot) = self.called.first() {
            boot.ring();
        }
    }
}

impl desk::Line for Line {
    /// When Linux looks for serial ports, it leaves the FIFOs off. Switching them on empties them.
    fn take_over(&self) {
        let port = |register: u16| Port::<u8>::new(self.base + register);
        self.silence();
        // SAFETY: the ports are those of the UART, which is Vidar's as long as the guest is stopped.
        unsafe {
            if serial::is_ours(port(2).read(), port(3).read(), port(4).read()) {
                return;
            }
            port(3).write(serial::LINE);
            if port(5).read() & 1 != 0 {
                *self.kept.lock() = Some(port(0).read());
            }
            port(1).write(0); // no interrupts
            port(4).write(0b1011); // ready, and interrupts let through
            port(2).write(1); // FIFOs
        }
    }

    /// A guest that looks for serial ports has the UART in other states meanwhile. Linux leaves its FIFOs and its
    /// interrupts off.
    fn listen(&self) -> bool {
        let port = |register: u16| Port::<u8>::new(self.base + register);
        // SAFETY: the ports are those of the UART. Reading these registers has no effect on what has been received.
        // Where the line control register is Vidar's, the guest does not use the UART now.
        unsafe {
            if !self.interrupts
                || !serial::is_ours(serial::FIFOS, port(3).read(), port(4).read())
                || self.is_armed()
            {
                return false;
            }
            if !self.silenced.swap(true, Ordering::SeqCst) {
                port(1).write(0);
                return true;
            }
            self.silenced.store(false, Ordering::SeqCst);
            port(2).write(1); // FIFOs
            port(4).write(0b1011); // ready, and interrupts let through
            port(1).write(RECEIVED);
        }
        false
    }

    /// A guest that looks for serial ports has the UART interrupt for other reasons.
    fn rings(&self) -> bool {
        self.interrupts && (self.is_ready() || !self.is_armed())
    }

    fn is_ready(&self) -> bool {
        self.kept.lock().is_some() || self.uart.lock().lsr().contains(LSR::DATA_READY)
    }

    fn receive(&self) -> Option<u8> {
        self.kept.lock().take().or_else(|| self.uart.lock().try_receive_byte().ok())
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

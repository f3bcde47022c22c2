//! A weekend with Vidar: a tour of the code in numbered stops.
//!
//! The tour follows the machine: from the first instruction to the guest's first exit and its answer, and from there to
//! the other CPUs, to memory, to what the guest may do, to AMD-V, to the end of a guest, and to the tests. Read the
//! stops in their order, with the files open. Each stop names its files, says what to look for and why it is the way it
//! is, and estimates the time. The whole tour takes about twelve hours.
//!
//! Two habits of the code help from the start. Decisions are in the core ([`vidar_core`]), as safe code that a test can
//! call; what touches the machine is in the shell. And where the code obeys a rule of the hardware, a comment names the
//! section of Intel's or AMD's manual that states it: keep both manuals open.
//!
//! | day | stops |
//! |---|---|
//! | Saturday morning: to the first exit | 1 to 5 |
//! | Saturday afternoon: the answer, and VT-x as a whole | 6 to 9 |
//! | Sunday morning: memory, policies, and further CPUs | 10 to 13 |
//! | Sunday afternoon: AMD-V, the end, the guest's kernel, the debugger, and the tests | 14 to 19 |
//!
//! # Before the first stop
//!
//! `cargo xtask run` boots Linux under Vidar; then try `vidarctl exits` in its shell (10 minutes). Read
//! `hv/ARCHITECTURE.md`, which is one page, and leave `hv/doc/glossary.md` open for the words (20 minutes).
//!
//! # Saturday morning: to the first exit
//!
//! ## 1. The first instruction
//!
//! *30 minutes:* `hv/src/boot/header.S`, `hv/src/boot/trampoline.S`, [`boot::trampoline`](crate::boot::trampoline),
//! `linker/hv.ld`.
//!
//! The header is what GRUB finds in the image. It asks for any free page of 2 MiB, so the trampoline cannot know its
//! own address. Look at how a `call` finds it, with a stack in memory that the loader has filled and that nobody reads
//! in the meantime. Everything in this file is relative to that address until long mode is on. Then look at the values
//! that the control registers get. They are constants, and not the loader's values with bits added, because firmware
//! may leave features on that Vidar does not expect.
//!
//! ## 2. The boot order
//!
//! *60 minutes:* [`boot::order`](crate::boot::order), with [`boot::refusal`](vidar_core::boot::refusal) and
//! [`boot::options`](vidar_core::boot::options) of the core beside it.
//!
//! `start` and `run_guest_on` are the whole boot, one line for each step. Do not follow each call yet. Look for the
//! place where the boot order can no longer refuse: a comment names the point of no return, and nearly everything that
//! can fail stands before it. Look at `run_guest_on::<E>` as well: from there on everything is compiled twice, once for
//! each extension, and the code no longer tests for the vendor.
//!
//! ## 3. What the loader says
//!
//! *45 minutes:* [`loader::multiboot2`](vidar_core::loader::multiboot2), [`loader::info`](vidar_core::loader::info),
//! [`mem::map`](vidar_core::mem::map), [`boot::memory_plan`](vidar_core::boot::memory_plan),
//! [`host::heap`](crate::host::heap).
//!
//! No number that comes from outside decides how much memory Vidar needs. So memory maps and lists of modules are
//! iterators over the loader's bytes and not vectors, and the memory plan is the map with what Vidar keeps. The
//! documentation of `host::heap` states this rule, and `hv/doc/decisions/0001-boot-takes-what-it-is-given.md` says why.
//!
//! ## 4. Where Linux goes
//!
//! *60 minutes:* [`linux::bzimage`](vidar_core::linux::bzimage), [`linux::placement`](vidar_core::linux::placement),
//! [`linux::boot_params`](vidar_core::linux::boot_params), [`boot::linux`](crate::boot::linux).
//!
//! Placement is decided from lists of addresses before a byte is copied. So the tests can try maps of real machines:
//! `hv/core/tests/maps` has some, and `hv/core/tests/placement.rs` places kernels in others. In the shell, `hand_over`
//! carries the decision out, in an order in which nothing is overwritten that is still to be read.
//!
//! ## 5. Into the guest, and out
//!
//! *60 minutes:* `hv/src/vmx/entry.S`, [`vmx::entry`](crate::vmx::entry), [`vmx::cpu`](crate::vmx::cpu),
//! [`vmx::vmcs`](crate::vmx::vmcs).
//!
//! The entry is a function that returns: the guest is what happens in between. Find the three ways out (the guest has
//! exited, the entry failed, an event is pending) and the window in which an NMI would come too late to be seen:
//! [`host::exceptions`](crate::host::exceptions) sends the entry back from there. Then read `run` in `vmx::cpu`, up to
//! the line that decodes the exit.
//!
//! # Saturday afternoon: the answer
//!
//! ## 6. The exit gets a name
//!
//! *30 minutes:* [`vmx::exit`](vidar_core::vmx::exit), [`vmm::exit`](vidar_core::vmm::exit).
//!
//! `decode` turns Intel's numbers into an [`Exit`](vidar_core::vmm::exit::Exit). It reads a field of the VMCS only for
//! the reasons that need the field, since each read costs time. It has no side effects, so a test can feed it any
//! numbers. From here on nothing names a vendor.
//!
//! ## 7. The answer
//!
//! *60 minutes:* [`vmm::run`](vidar_core::vmm::run), [`vmm::outcome`](vidar_core::vmm::outcome),
//! [`vmm::vcpu`](vidar_core::vmm::vcpu).
//!
//! This is the heart: `run` runs the guest, `answer` decides, and `apply` moves the guest on. Follow CPUID first, as it
//! is the exit that comes most often: [`policy::cpuid`](vidar_core::policy::cpuid) computes the four registers, and the
//! outcome is `Advance`. Then follow `advance` to `skip` in `vmx::cpu`: continuing after an instruction takes more than
//! a new RIP. RF is cleared, the shadow of STI and MOV SS ends, and TF makes a debug exception due. The loop goes
//! round, VMRESUME is executed, and the guest goes on. **An exit has been answered.** Look at the two types that `Vcpu`
//! names: where a vendor lacks something, its type has no values, so no backend needs a stub.
//!
//! The loop also tells an observer of each exit and entry: [`vmm::observer`](vidar_core::vmm::observer). Read its
//! smallest one, [`vmm::tracer`](vidar_core::vmm::tracer), with [`trace::writer`](vidar_core::trace::writer): boot with
//! `trace=on`, run `vidarctl trace -n 20`, and find the exits of your own command in it.
//!
//! ## 8. Who asked for the exit
//!
//! *60 minutes:* [`vmx::capabilities`](vidar_core::vmx::capabilities), [`vmx::controls`](vidar_core::vmx::controls),
//! [`vmx::setup`](vidar_core::vmx::setup), [`vmm::cpu_state`](vidar_core::vmm::cpu_state),
//! [`vmx::guest_state`](vidar_core::vmx::guest_state), [`vmx::field`](vidar_core::vmx::field),
//! [`vmx::enable`](crate::vmx::enable).
//!
//! The capabilities are checked all at once, so that a refusal names everything that is missing. In `setup`, look at
//! what is *not* set: no exit for interrupts, ports, HLT or page faults. A field of the VMCS is a constant with its
//! width in its type, so a write of the wrong width does not compile.
//!
//! ## 9. Events at the wrong moment
//!
//! *45 minutes:* [`vmx::event`](vidar_core::vmx::event), [`vmx::pending`](vidar_core::vmx::pending),
//! [`vmx::delivery`](crate::vmx), `hv/doc/nmi.md`.
//!
//! An exit can interrupt the delivery of an exception, and an NMI can arrive while Vidar runs. Both must reach the
//! guest, once and in the right order. Try to find a sequence in which one is lost; the pages of the manual that the
//! comments name are the judge.
//!
//! # Sunday morning: memory, policies, CPUs
//!
//! ## 10. The second stage
//!
//! *60 minutes:* [`mem::identity`](vidar_core::mem::identity), [`mem::stage2`](vidar_core::mem::stage2),
//! [`vmx::ept`](vidar_core::vmx::ept), [`mem::mtrr`](vidar_core::mem::mtrr), [`vmm::memory`](vidar_core::vmm::memory).
//!
//! `identity` says what is mapped where, and `stage2` how tables work; the format of an entry is a third file. The
//! answer for an address depends on the address alone, so it does not matter whether a page is mapped early or on the
//! first touch, and `hv/core/tests/second_stage` proves it with random orders. Look at what is shown in place of
//! Vidar's memory: the decoy. With `dma=guard` devices have tables of the same kind
//! ([`iommu::tables`](vidar_core::iommu::tables)), and [`iommu::unit`](vidar_core::iommu::unit) decides what the guest
//! sees of the IOMMUs.
//!
//! ## 11. What the guest may do
//!
//! *60 minutes:* [`policy::msr`](vidar_core::policy::msr), [`policy::cpuid_bits`](vidar_core::policy::cpuid_bits),
//! [`policy::control`](vidar_core::policy::control),
//! [`policy::known_features`](vidar_core::policy::known_features).
//!
//! The policies are tables, and the bitmaps of the hardware are derived from them
//! ([`vmx::msr_bitmap`](vidar_core::vmx::msr_bitmap)), so the two cannot disagree. The hardest rule is in
//! `known_features`: a feature that Vidar does not know could exit in a way that Vidar cannot decode, so the guest does
//! not see it.
//!
//! ## 12. Hypercalls
//!
//! *20 minutes:* [`vidar_abi`], [`vmm::hypercall`](vidar_core::vmm::hypercall), [`debug::log`](crate::debug::log), and
//! `iso/vidarctl/src/query.rs` on the other side.
//!
//! All arguments and results are in registers, so Vidar never has to read or write the guest's memory for a call.
//! Follow `vidarctl log` from the program to the ring in [`kept_log::ring`](vidar_core::kept_log::ring). Then look at
//! [`kept_log::area`](vidar_core::kept_log::area): it finds what a warm reset has left of the log, and believes nothing
//! of it unless a CRC fits.
//!
//! ## 13. The other CPUs
//!
//! *90 minutes:* `hv/doc/cpus.md`, [`cpus::further`](crate::cpus::further), `hv/src/cpus/ap.S`,
//! [`boot::startup`](vidar_core::boot::startup), [`vmm::startup`](vidar_core::vmm::startup),
//! [`vmm::ipi`](vidar_core::vmm::ipi), [`vmm::apic`](vidar_core::vmm::apic).
//!
//! Every CPU is under Vidar before the guest starts, and waits until the guest wakes it up. There are three ways to
//! wait, since VT-x has a state for it, AMD-V has none, and some emulators and hypervisors have neither. Read
//! `hv/doc/cpus.md` first and then one way at a time: the hardware's, then the emulated one. The third comes with AMD-V
//! at stop 15.
//!
//! # Sunday afternoon: AMD-V, the end, and the tests
//!
//! ## 14. The second backend
//!
//! *60 minutes:* [`extension`](crate::extension), `hv/src/svm/entry.S`, [`svm::cpu`](crate::svm::cpu),
//! [`svm::exit`](vidar_core::svm::exit), [`svm::vmcb`](vidar_core::svm::vmcb).
//!
//! Compare it with VT-x. The VMCB is plain memory and is not accessed by special instructions, so each change must name
//! what the CPU may have cached of it. GIF holds NMIs back, so there is no window. And not every CPU reports how long
//! an instruction is: follow the address of the next one from `svm::cpu` to
//! [`svm::instruction`](vidar_core::svm::instruction), [`mem::walk`](vidar_core::mem::walk) and
//! [`vmm::doubt`](vidar_core::vmm::doubt), and find out what happens when another CPU changes the instruction
//! meanwhile.
//!
//! ## 15. Landing
//!
//! *30 minutes:* [`boot::landing`](vidar_core::boot::landing), [`mem::moved`](vidar_core::mem::moved),
//! `hv/doc/decisions/0006-start-up-ipis-on-amd-v.md`.
//!
//! On AMD-V a CPU waits outside of the guest, and its start-up IPI makes it execute the machine's page and not the
//! guest's. So Vidar reserves all of these pages for itself and gives the guest others in their place.
//!
//! ## 16. The end of a guest
//!
//! *30 minutes:* [`cpus::end`](crate::cpus::end), [`report`](vidar_core::report),
//! [`vmx::snapshot`](vidar_core::vmx::snapshot), [`arch::stop`](crate::arch::stop),
//! [`debug::panic`](crate::debug::panic), `hv/doc/stops.md`.
//!
//! When a guest cannot go on, Vidar writes a crash report, and then the machine ends as `on-crash=` says. One CPU
//! writes the report, so the others are stopped first, where an INIT can do that. Vidar itself panics only for its own
//! bugs; the page lists every way that is left for a guest to stop the machine. A CPU that refuses to enter a guest
//! does not say why, so Vidar has the manuals' rules as tables: read
//! [`vmx::rules::segments`](vidar_core::vmx::rules::segments), and `hv/core/tests/entry_rules/vmx_cases.rs`, where each
//! rule is broken alone.
//!
//! ## 17. Reading the guest's kernel
//!
//! *45 minutes:* [`kernel::running`](vidar_core::kernel::running), [`kernel::kallsyms`](vidar_core::kernel::kallsyms),
//! [`kernel::chain`](vidar_core::kernel::chain), `hv/doc/inside.md`, `hv/core/tests/kernel/hostile.rs`.
//!
//! A stripped kernel has the names of its functions, and a table of where each keeps its return address, in its own
//! memory. Follow one return address from the stack to its name. The guest owns all of these tables: at each loop, find
//! what bounds it.
//!
//! ## 18. A debugger below the kernel
//!
//! *45 minutes:* [`debugger::observer`](vidar_core::debugger::observer),
//! [`debugger::desk`](vidar_core::debugger::desk), [`debugger::exceptions`](vidar_core::debugger::exceptions),
//! [`svm::debug`](crate::svm::debug), `hv/core/tests/debugger/main.rs`.
//!
//! gdb and the guest both use debug exceptions. Find out how one is told from the other, where all CPUs meet when one
//! of them stops, and what a step by RFLAGS.TF leaves in the guest and must take out again.
//!
//! ## 19. How it is tested
//!
//! *60 minutes:* `hv/core/tests/run_loop/cpu.rs`, `hv/core/tests/run_loop/any.rs`, `xtask/probe/src/scenarios/mod.rs`,
//! `xtask/src/test/probes.rs`, `hv/doc/testing.md`.
//!
//! The run loop is tested on a CPU that follows a script, then with arbitrary exits in arbitrary states. The probe is a
//! tiny guest that does on purpose what no guest should do. Each of its scenarios is compared with what the bare
//! machine answers, and so is nearly everything that Linux sees.
//!
//! # Monday
//!
//! Change something: `hv/HACKING.md` has recipes for a new MSR, option, hypercall, scenario and lane.

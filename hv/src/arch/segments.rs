//! The GDT and the TSS of a CPU.

#![expect(unsafe_code, reason = "segment registers and the task register are loaded here")]

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// The exceptions that have a stack of their own, because the interrupted stack may have caused them or may not be
/// usable at that moment. The value is the index in the TSS's interrupt stack table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Ist {
    /// #PF, because the stack may have run into its guard page.
    PageFault = 0,
    /// #DF, because the stack may be at fault.
    DoubleFault = 1,
    /// The NMI, which can interrupt any instruction.
    Nmi = 2,
    /// #MC, which can interrupt any instruction.
    MachineCheck = 3,
}

/// The number of [`Ist`] stacks.
pub const IST_STACKS: usize = 4;

/// The GDT and the TSS of one CPU; both must live as long as the CPU runs.
#[derive(Debug)]
pub struct Segments {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
}

/// The selectors and the addresses of the tables, which a VM exit must load. Intel SDM Vol. 3C, 28.5.2 "Loading Host
/// Segment and Descriptor-Table Registers".
#[derive(Debug, Clone, Copy)]
pub struct Selectors {
    /// Selector of the code segment.
    pub code: SegmentSelector,
    /// Selector of the task-state segment. VM entry fails if it is null.
    pub task: SegmentSelector,
    /// Linear address of the GDT.
    pub gdt: u64,
    /// Linear address of the TSS.
    pub tss: u64,
}

impl Segments {
    /// Creates the tables. `stack_tops` are the addresses at which the interrupt stacks start to grow down, in the
    /// order of [`Ist`].
    pub fn new(stack_tops: [u64; IST_STACKS]) -> Self {
        let mut tss = TaskStateSegment::new();
        let mut table = tss.interrupt_stack_table;
        for (entry, top) in table.iter_mut().zip(stack_tops) {
            *entry = VirtAddr::new(top);
        }
        tss.interrupt_stack_table = table;
        Self { gdt: GlobalDescriptorTable::new(), tss }
    }

    /// Loads the GDT, the TSS, and CS, SS, DS and ES of this CPU. Returns what a VM exit must load.
    ///
    /// This works again after an INIT: the GDT is rebuilt each time, since loading a TSS marks it as busy in the table.
    pub fn load(&'static mut self) -> Selectors {
        self.gdt = GlobalDescriptorTable::new();
        let code = self.gdt.append(Descriptor::kernel_code_segment());
        let data = self.gdt.append(Descriptor::kernel_data_segment());
        let task = self.gdt.append(Descriptor::tss_segment(&self.tss));
        self.gdt.load();
        // SAFETY: the selectors belong to the table just loaded, and the tables are never freed.
        unsafe {
            CS::set_reg(code);
            SS::set_reg(data);
            DS::set_reg(SegmentSelector::NULL);
            ES::set_reg(SegmentSelector::NULL);
            load_tss(task);
        }
        Selectors {
            code,
            task,
            gdt: x86_64::instructions::tables::sgdt().base.as_u64(),
            tss: &raw const self.tss as u64,
        }
    }
}

//! GDT and TSS of a CPU.

#![expect(unsafe_code, reason = "segment registers and the task register are loaded here")]

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// Exceptions that get a stack of their own, because the stack they interrupt may be the problem or in a state that
/// cannot be added to. The value is the index in the TSS's interrupt stack table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Ist {
    /// #PF: a stack that ran into its guard page.
    PageFault = 0,
    /// #DF.
    DoubleFault = 1,
    /// NMI.
    Nmi = 2,
    /// #MC.
    MachineCheck = 3,
}

/// How many [`Ist`] stacks there are.
pub const IST_STACKS: usize = 4;

/// GDT and TSS of one CPU; both must live as long as the CPU runs.
#[derive(Debug)]
pub struct Segments {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
}

/// The selectors that a VM exit must load. Intel SDM Vol. 3C, 28.5.2 "Loading Host Segment and Descriptor-Table
/// Registers".
#[derive(Debug, Clone, Copy)]
pub struct Selectors {
    /// Code segment.
    pub code: SegmentSelector,
    /// Task state segment; VM entry refuses a null one.
    pub task: SegmentSelector,
    /// Linear address of the GDT.
    pub gdt: u64,
    /// Linear address of the TSS.
    pub tss: u64,
}

impl Segments {
    /// Tables whose interrupt stacks end at `stack_tops`.
    pub fn new(stack_tops: [u64; IST_STACKS]) -> Self {
        let mut tss = TaskStateSegment::new();
        let mut table = tss.interrupt_stack_table;
        for (entry, top) in table.iter_mut().zip(stack_tops) {
            *entry = VirtAddr::new(top);
        }
        tss.interrupt_stack_table = table;
        Self { gdt: GlobalDescriptorTable::new(), tss }
    }

    /// Loads GDT, TSS and all segment registers of this CPU.
    /// Again after an INIT, too: the table is made anew, since a loaded TSS is marked in it as busy.
    pub fn load(&'static mut self) -> Selectors {
        self.gdt = GlobalDescriptorTable::new();
        let code = self.gdt.append(Descriptor::kernel_code_segment());
        let data = self.gdt.append(Descriptor::kernel_data_segment());
        let task = self.gdt.append(Descriptor::tss_segment(&self.tss));
        self.gdt.load();
        // SAFETY: the selectors are those of the table just loaded, and the tables live for ever.
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

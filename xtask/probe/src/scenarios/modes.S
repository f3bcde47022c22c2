// Goes through the modes of the CPU and back: 64-bit mode, compatibility mode, protected mode without paging, with
// two-level paging and with PAE paging, and real mode. Each change of paging also changes CR0.NE, which VT-x fixes, so
// that a hypervisor has to carry out the change itself. Each step executes CPUID, and is counted if the answer is
// right.
//
// This code is copied to MODES, below 1 MiB, and called there as a function. EDI holds the address of page directories
// that map the first 4 GiB. EAX returns the number of steps that were counted. The two pages after the code are used
// for page tables.

.set MODES, 0x8000
.set DIRECTORY, 0x9000                  // page directory of two-level paging
.set POINTERS, 0xa000                   // top table of PAE paging

.set PG_AND_NE, 0x80000020
.set PE, 1
.set PAE, 0x20
.set PSE, 0x10
.set EFER, 0xc0000080
.set LME, 0x100

.macro count_step
    xorl %eax, %eax
    xorl %ecx, %ecx
    cpuid
    cmpl %ebx, at_vendor
    jne 77f
    incl at_steps
77:
.endm

.section .rodata.modes, "a"
.balign 16
.globl modes_start
modes_start:
.code64
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movl %edi, %ebp                     // EBP = page directories
    movq %rsp, at_stack
    sgdt at_old_gdt
    movl $0, at_steps
    xorl %eax, %eax
    cpuid
    movl %ebx, at_vendor
    movq %cr3, %rax
    movl %eax, at_cr3
    movq %cr4, %rax
    movl %eax, at_cr4
    movq %cr0, %rax
    movl %eax, at_cr0
    lgdt at_gdt_pointer
    pushq $0x18
    pushq $at_compatibility
    lretq

.code32
modes_compatibility:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    count_step

    // Turn paging off, which leaves long mode. Then turn long mode off.
    movl %cr0, %eax
    xorl $PG_AND_NE, %eax
    movl %eax, %cr0
    count_step
    movl $EFER, %ecx
    rdmsr
    andl $~LME, %eax
    wrmsr
    count_step

    // Enter two-level paging with pages of 4 MiB: present, writable, accessed, dirty.
    movl $DIRECTORY, %edi
    movl $0xe3, %eax
    movl $1024, %ecx
1:  movl %eax, (%edi)
    addl $0x400000, %eax
    addl $4, %edi
    loop 1b
    movl at_cr4, %eax
    andl $~PAE, %eax
    orl $PSE, %eax
    movl %eax, %cr4
    movl $DIRECTORY, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    xorl $PG_AND_NE, %eax
    movl %eax, %cr0
    count_step
    movl %cr0, %eax
    xorl $PG_AND_NE, %eax
    movl %eax, %cr0
    count_step

    // Enter PAE paging. The CPU reads the four entries of the top table when paging is turned on.
    movl $POINTERS, %edi
    leal 1(%ebp), %eax
    movl $4, %ecx
1:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 1b
    movl at_cr4, %eax
    movl %eax, %cr4
    movl $POINTERS, %eax
    movl %eax, %cr3
    movl %cr0, %eax
    xorl $PG_AND_NE, %eax
    movl %eax, %cr0
    count_step
    movl $POINTERS, %eax
    movl %eax, %cr3
    count_step
    movl %cr0, %eax
    xorl $PG_AND_NE, %eax
    movl %eax, %cr0
    count_step

    // Enter real mode.
    ljmpl $0x20, $at_16_bit
.code16
modes_16_bit:
    movw $0x28, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    count_step
    movl %cr0, %eax
    andl $~PE, %eax
    movl %eax, %cr0
    ljmpl $0, $at_real
modes_real:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    count_step
    movl %cr0, %eax
    xorl $0x20, %eax                    // NE alone
    movl %eax, %cr0
    count_step

    // Go back to 64-bit mode.
    movl %cr0, %eax
    orl $PE, %eax
    movl %eax, %cr0
    ljmpl $0x18, $at_protected
.code32
modes_protected:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    count_step
    movl at_cr4, %eax
    movl %eax, %cr4
    movl at_cr3, %eax
    movl %eax, %cr3
    movl $EFER, %ecx
    rdmsr
    orl $LME, %eax
    wrmsr
    movl at_cr0, %eax
    xorl $0x20, %eax
    movl %eax, %cr0
    count_step
    ljmpl $0x08, $at_64_bit
.code64
modes_64_bit:
    count_step
    movl at_cr0, %eax
    movq %rax, %cr0
    lgdt at_old_gdt
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq at_stack, %rsp
    movl at_steps, %eax
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    retq

.balign 8
modes_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            // 0x08: 64-bit code
    .quad 0x00cf93000000ffff            // 0x10: data
    .quad 0x00cf9b000000ffff            // 0x18: 32-bit code
    .quad 0x00009b000000ffff            // 0x20: 16-bit code
    .quad 0x000093000000ffff            // 0x28: data of 64 KiB
modes_gdt_pointer:
    .word 47
    .quad at_gdt
.balign 8
modes_old_gdt:
    .skip 16
modes_stack:
    .quad 0
modes_steps:
    .long 0
modes_vendor:
    .long 0
modes_cr0:
    .long 0
modes_cr3:
    .long 0
modes_cr4:
    .long 0
.globl modes_end
modes_end:

// The addresses of these labels in the copy.
.set at_compatibility, MODES + (modes_compatibility - modes_start)
.set at_16_bit, MODES + (modes_16_bit - modes_start)
.set at_real, MODES + (modes_real - modes_start)
.set at_protected, MODES + (modes_protected - modes_start)
.set at_64_bit, MODES + (modes_64_bit - modes_start)
.set at_gdt, MODES + (modes_gdt - modes_start)
.set at_gdt_pointer, MODES + (modes_gdt_pointer - modes_start)
.set at_old_gdt, MODES + (modes_old_gdt - modes_start)
.set at_stack, MODES + (modes_stack - modes_start)
.set at_steps, MODES + (modes_steps - modes_start)
.set at_vendor, MODES + (modes_vendor - modes_start)
.set at_cr0, MODES + (modes_cr0 - modes_start)
.set at_cr3, MODES + (modes_cr3 - modes_start)
.set at_cr4, MODES + (modes_cr4 - modes_start)

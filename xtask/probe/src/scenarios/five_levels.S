// Changes CR3 and CR4 while paging is off: leaves 64-bit mode for protected mode without paging, and enters it again.
//
// This code is copied to LEVELS, below 1 MiB, and called there as a function. EDI holds the new CR3, and ESI the new
// CR4.

.set LEVELS, 0xc000

.section .rodata.levels, "a"
.balign 16
.globl levels_start
levels_start:
.code64
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, at_levels_stack
    sgdt at_levels_old_gdt
    lgdt at_levels_gdt_pointer
    pushq $0x18
    pushq $at_levels_32_bit
    lretq

.code32
levels_32_bit:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %cr0, %eax
    andl $0x7fffffff, %eax
    movl %eax, %cr0
    movl %esi, %cr4
    movl %edi, %cr3
    orl $0x80000000, %eax
    movl %eax, %cr0
    ljmpl $0x08, $at_levels_64_bit
.code64
levels_64_bit:
    lgdt at_levels_old_gdt
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq at_levels_stack, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    retq

.balign 8
levels_gdt:
    .quad 0
    .quad 0x00af9b000000ffff            // 0x08: 64-bit code
    .quad 0x00cf93000000ffff            // 0x10: data
    .quad 0x00cf9b000000ffff            // 0x18: 32-bit code
levels_gdt_pointer:
    .word 31
    .quad at_levels_gdt
.balign 8
levels_old_gdt:
    .skip 16
levels_stack:
    .quad 0
.globl levels_end
levels_end:

// The addresses of these labels in the copy.
.set at_levels_32_bit, LEVELS + (levels_32_bit - levels_start)
.set at_levels_64_bit, LEVELS + (levels_64_bit - levels_start)
.set at_levels_gdt, LEVELS + (levels_gdt - levels_start)
.set at_levels_gdt_pointer, LEVELS + (levels_gdt_pointer - levels_start)
.set at_levels_old_gdt, LEVELS + (levels_old_gdt - levels_start)
.set at_levels_stack, LEVELS + (levels_stack - levels_start)

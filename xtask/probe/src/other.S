// The code of the second CPU, from its start-up IPI on. It stores the registers that it finds, enters protected mode
// without paging, and then executes the commands that it reads from memory. It is copied to OTHER_PAGE and runs there;
// the memory that it writes lies after it.

.set OTHER_PAGE, 0x7000
.set OTHER_NOTES, 0x7700
.set OTHER_COUNT, 0x7780
.set OTHER_NMIS, 0x7788
.set OTHER_INTERRUPTS, 0x778c
.set OTHER_TURNS, 0x7790
.set OTHER_X2APIC, 0x7794
.set OTHER_LEFT, 0x7798
.set OTHER_FAULTS, 0x779c
.set OTHER_MAIL, 0x77a0                       // a word each: command, address or index, value (two), result (two)
.set OTHER_STACK, 0x7fe0
.set OTHER_MSRS, 0x7800                       // the number of MSRs to read, and their indices
.set OTHER_VALUES, 0x7a00
.set OTHER_IDT, 0x8000
.set OTHER_LONG_IDT, 0x8800

.section .rodata.other, "a"
.balign 16
.globl other_begin
other_begin:
.code16
    // DS is 0 after INIT.
    mov dword ptr ds:[OTHER_NOTES + 0x00], eax
    mov dword ptr ds:[OTHER_NOTES + 0x04], ebx
    mov dword ptr ds:[OTHER_NOTES + 0x08], ecx
    mov dword ptr ds:[OTHER_NOTES + 0x0c], edx
    mov dword ptr ds:[OTHER_NOTES + 0x10], esi
    mov dword ptr ds:[OTHER_NOTES + 0x14], edi
    mov dword ptr ds:[OTHER_NOTES + 0x18], ebp
    mov dword ptr ds:[OTHER_NOTES + 0x1c], esp
    mov sp, OTHER_STACK
    pushfd
    pop dword ptr ds:[OTHER_NOTES + 0x20]
    mov eax, cr0
    mov dword ptr ds:[OTHER_NOTES + 0x24], eax
    mov eax, cr2
    mov dword ptr ds:[OTHER_NOTES + 0x28], eax
    mov eax, cr3
    mov dword ptr ds:[OTHER_NOTES + 0x2c], eax
    mov eax, cr4
    mov dword ptr ds:[OTHER_NOTES + 0x30], eax
    mov eax, dr0
    mov dword ptr ds:[OTHER_NOTES + 0x34], eax
    mov eax, dr3
    mov dword ptr ds:[OTHER_NOTES + 0x38], eax
    mov eax, dr6
    mov dword ptr ds:[OTHER_NOTES + 0x3c], eax
    mov eax, dr7
    mov dword ptr ds:[OTHER_NOTES + 0x40], eax
    mov word ptr ds:[OTHER_NOTES + 0x44], cs
    mov word ptr ds:[OTHER_NOTES + 0x46], ds
    mov word ptr ds:[OTHER_NOTES + 0x48], es
    mov word ptr ds:[OTHER_NOTES + 0x4a], fs
    mov word ptr ds:[OTHER_NOTES + 0x4c], gs
    mov word ptr ds:[OTHER_NOTES + 0x4e], ss
    .byte 0x0f, 0x01, 0x06              // sgdt
    .short OTHER_NOTES + 0x50
    .byte 0x0f, 0x01, 0x0e              // sidt
    .short OTHER_NOTES + 0x58
    mov esi, OTHER_MSRS + 4
    mov edi, OTHER_VALUES
    mov ebp, dword ptr ds:[OTHER_MSRS]
1:  test ebp, ebp
    jz 2f
    mov ecx, dword ptr [esi]
    rdmsr
    mov dword ptr [edi], eax
    mov dword ptr [edi + 4], edx
    add esi, 4
    add edi, 8
    dec ebp
    jmp 1b
2:  .byte 0x66, 0x0f, 0x01, 0x16        // lgdt
    .short at_other_gdt_pointer
    .byte 0x66, 0x0f, 0x01, 0x1e        // lidt
    .short at_other_idt_pointer
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea                    // ljmp
    .long at_other_protected
    .short 8

.code32
other_protected:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, OTHER_STACK
    inc dword ptr ds:[OTHER_COUNT]
other_next:
    inc dword ptr ds:[OTHER_TURNS]
    pause
    mov ebx, dword ptr ds:[OTHER_MAIL]
    test ebx, ebx
    jz other_next
    mov ecx, dword ptr ds:[OTHER_MAIL + 4]
    mov eax, dword ptr ds:[OTHER_MAIL + 8]
    mov edx, dword ptr ds:[OTHER_MAIL + 12]
    dec ebx
    jz other_load
    dec ebx
    jz other_store
    dec ebx
    jz other_rdmsr
    dec ebx
    jz other_wrmsr
    dec ebx
    jz other_cr0
    dec ebx
    jz other_cr4
    dec ebx
    jz other_fill
    dec ebx
    jz other_enable
    dec ebx
    jz other_long
    dec ebx
    jz other_read_cr0
    dec ebx
    jz other_read_cr4
    dec ebx
    jz other_look
    // The code of the remaining commands does not return here.
    mov dword ptr ds:[OTHER_MAIL], 0
    dec ebx
    jz other_halted
    dec ebx
    jz other_waiting
    dec ebx
    jz other_spinning
    sti
    jmp other_spinning

other_load:
    mov eax, dword ptr [ecx]
    jmp other_done
other_store:
    mov dword ptr [ecx], eax
    jmp other_done
other_rdmsr:
    rdmsr
    jmp other_done
other_wrmsr:
    wrmsr
    jmp other_done
other_cr0:
    mov cr0, eax
    jmp other_done
other_cr4:
    mov cr4, eax
    jmp other_done
other_fill:
    mov eax, 0x1234
    mov cr2, eax
    mov dr0, eax
    mov dr3, eax
    mov eax, 0xffff4ff0
    mov dr6, eax
    mov eax, 0x2000
    mov cr3, eax
    jmp other_done
other_enable:
    sti
    nop
    jmp other_done
// Enters long mode with the page tables at ECX, and stays in 32-bit code. The interrupt descriptor table is then that
// of long mode.
other_long:
    mov cr3, ecx
    mov eax, cr4
    or eax, 0x20                        // PAE
    mov cr4, eax
    mov ecx, 0xc0000080                 // IA32_EFER
    rdmsr
    or eax, 0x100                       // LME
    wrmsr
    .byte 0x0f, 0x01, 0x1d              // lidt
    .long at_other_long_idt_pointer
    mov eax, cr0
    or eax, 0x80000000                  // PG
    mov cr0, eax
    jmp other_done
other_read_cr0:
    mov eax, cr0
    jmp other_done
other_read_cr4:
    mov eax, cr4
    jmp other_done
// Looks for a UART as Linux does, by the interrupt enable register at port ECX: enables all interrupts, and then only
// those that were enabled before.
.globl other_look
other_look:
    mov edx, ecx
    in al, dx
    mov ah, al
    mov al, 0xf
    out dx, al
    mov al, ah
    out dx, al
    jmp other_done
other_done:
    mov dword ptr ds:[OTHER_MAIL + 16], eax
    mov dword ptr ds:[OTHER_MAIL + 20], edx
    mov dword ptr ds:[OTHER_MAIL], 0
    jmp other_next

other_halted:
    cli
    hlt
    jmp other_halted
other_waiting:
    sti
    hlt
    jmp other_waiting
other_spinning:
    jmp other_spinning

// Handles an interrupt: counts it, and ends it at the local APIC. If OTHER_LEFT is set, the interrupt stays in service
// instead, and interrupts stay disabled after the handler.
.globl other_interrupt
other_interrupt:
    push eax
    push ecx
    push edx
    inc dword ptr ds:[OTHER_INTERRUPTS]
    cmp dword ptr ds:[OTHER_LEFT], 0
    je 3f
    and dword ptr [esp + 20], 0xfffffdff    // after EDX, ECX, EAX, EIP and CS
    jmp 2f
3:  cmp dword ptr ds:[OTHER_X2APIC], 0
    jne 1f
    mov dword ptr ds:[0xfee000b0], 0
    jmp 2f
1:  xor eax, eax
    xor edx, edx
    mov ecx, 0x80b
    wrmsr
2:  pop edx
    pop ecx
    pop eax
    iretd

// Handles an NMI: counts it, and stays in the handler, so that the next NMI has to wait.
.globl other_nmi
other_nmi:
    inc dword ptr ds:[OTHER_NMIS]
1:  jmp 1b

// Handles a #GP in long mode: counts it, and ends the command.
.code64
.globl other_refused
other_refused:
    inc dword ptr ds:[OTHER_FAULTS]
    mov qword ptr [rsp + 8], offset at_other_done   // after the error code
    add rsp, 8
    iretq
.code32

.balign 8
other_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            // 0x08: 32-bit code
    .quad 0x00cf93000000ffff            // 0x10: data
    .quad 0x00af9b000000ffff            // 0x18: 64-bit code
other_gdt_pointer:
    .short 31
    .long at_other_gdt
other_idt_pointer:
    .short 0x7ff
    .long OTHER_IDT
other_long_idt_pointer:
    .short 0xdf                         // up to #GP
    .long OTHER_LONG_IDT
.globl other_end
other_end:

.set at_other_protected, OTHER_PAGE + (other_protected - other_begin)
.set at_other_done, OTHER_PAGE + (other_done - other_begin)
.set at_other_long_idt_pointer, OTHER_PAGE + (other_long_idt_pointer - other_begin)
.set at_other_gdt, OTHER_PAGE + (other_gdt - other_begin)
.set at_other_gdt_pointer, OTHER_PAGE + (other_gdt_pointer - other_begin)
.set at_other_idt_pointer, OTHER_PAGE + (other_idt_pointer - other_begin)
.code64

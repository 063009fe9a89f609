/* Interrupts that must arrive exactly once each, however the machine's processes are scheduled or killed.
 *
 * Needs QEMU's pc-testdev: a byte written to port 2000h + n is the level of interrupt line n. Quintet's has a source
 * of interrupts beside it (ports 2020h on, line 5), whose acknowledgement is a posted write and which can rise by
 * itself some nanoseconds later; where it is, it is used. The number of interrupts of each kind is the last word of the
 * command line, 100 000 without one. In the first kinds every second wait halts, in the last ones each does, so that a
 * lost wake-up counts as a loss. The verdict is the line "irqstorm: passed" or "irqstorm: failed"; isa-debug-exit gets
 * 0 or 1. */
.include "pc.inc"
MULTIBOOT_HEADER
.include "text.inc"
.include "traps.inc"
.include "storm.inc"

.section .bss
.balign 4
bad: .skip 4
source: .skip 4              /* there is a source */

GUEST_START
    push ebx
    call traps_init
    UART_INIT
    call text_clear
    pop ebx
    call count_from_command_line
    PRINT "irqstorm: "
    mov eax, [wanted]
    call put_decimal
    PRINT " of each kind\n"
    mov dword ptr [seed], 12345

    PIT_18HZ

    mov dword ptr [halts], 1
    mov dx, SOURCE + 4
    in eax, dx
    inc eax
    mov [source], eax
    jz 3f

    mov dword ptr [hook], offset acknowledge
    mov dword ptr [kind], offset raise_source
    mov ax, 1 << SOURCE_LINE
    call set_elcr
    mov al, 0xFA ^ (1 << SOURCE_LINE)
    out PIC1 + 1, al
    mov edi, VECTOR_PIC + SOURCE_LINE
    call storm
    PRINT "posted acknowledgement, 8259"
    call report

    mov dword ptr [halts], 0
    mov dword ptr [kind], offset raise_later
    call storm
    PRINT "STI;HLT woken by a device, 8259"
    call report
    mov dword ptr [halts], 1

3:  mov dword ptr [hook], offset lower_the_line
    mov dword ptr [kind], offset raise_level
    mov ax, 1 << LINE
    call set_elcr
    mov al, 0xFA                      /* lines 0, 2 */
    out PIC1 + 1, al
    mov al, 0xFF ^ (1 << (LINE - 8))
    out PIC2 + 1, al
    mov edi, VECTOR_PIC + LINE
    call storm
    PRINT "level, 8259"
    call report

    mov dword ptr [hook], offset nothing
    mov dword ptr [kind], offset raise_pulse
    xor ax, ax
    call set_elcr
    mov edi, VECTOR_PIC + LINE
    call storm
    PRINT "pulse, 8259"
    call report

    mov al, 0xFF
    out PIC2 + 1, al
    mov eax, 1
    cpuid
    test edx, 1 << 9
    jz 1f
    mov dword ptr ds:[APIC + 0xF0], 0x100 | VECTOR_SPURIOUS
    mov dword ptr ds:[APIC + 0x80], 0
    mov al, 0x10 + LINE * 2 + 1
    mov edx, ds:[APIC + 0x20]
    call ioapic_write

    mov dword ptr [hook], offset lower_the_line
    mov dword ptr [kind], offset raise_level
    mov al, 0x10 + LINE * 2
    mov edx, 0x8000 | VECTOR_IOAPIC
    call ioapic_write
    mov edi, VECTOR_IOAPIC
    call storm
    PRINT "level, I/O APIC"
    call report

    mov dword ptr [hook], offset nothing
    mov dword ptr [kind], offset raise_pulse
    mov al, 0x10 + LINE * 2
    mov edx, VECTOR_IOAPIC
    call ioapic_write
    mov edi, VECTOR_IOAPIC
    call storm
    PRINT "pulse, I/O APIC"
    call report
    mov al, 0x10 + LINE * 2
    mov edx, 0x10000
    call ioapic_write

    cmp dword ptr [source], 0
    je 3f
    mov dword ptr [hook], offset acknowledge
    mov dword ptr [kind], offset raise_source
    mov al, 0x10 + SOURCE_LINE * 2 + 1
    mov edx, ds:[APIC + 0x20]
    call ioapic_write
    mov al, 0x10 + SOURCE_LINE * 2
    mov edx, 0x8000 | VECTOR_IOAPIC
    call ioapic_write
    mov edi, VECTOR_IOAPIC
    call storm
    PRINT "posted acknowledgement, I/O APIC"
    call report

    mov dword ptr [halts], 0
    mov dword ptr [kind], offset raise_later
    call storm
    PRINT "STI;HLT woken by a device, I/O APIC"
    call report
    mov dword ptr [halts], 1
    mov al, 0x10 + SOURCE_LINE * 2
    mov edx, 0x10000
    call ioapic_write
    mov dword ptr [hook], offset nothing

3:  mov dword ptr [kind], offset arm_timer
    mov dword ptr ds:[APIC + 0x3E0], 0xB
    mov dword ptr ds:[APIC + 0x320], VECTOR_TIMER
    mov edi, VECTOR_TIMER
    call storm
    PRINT "one shot of the APIC timer"
    call report

    mov dword ptr [halts], 0
    call storm
    PRINT "STI;HLT woken by the APIC timer"
    call report

1:  cmp dword ptr [bad], 0
    jne 2f
    PRINT "irqstorm: passed\n"
    xor eax, eax
    jmp leave_with
2:  PRINT "irqstorm: failed\n"
    mov eax, 1
    jmp leave_with

/* The last decimal number of the multiboot command line, if any. */
count_from_command_line:
    mov dword ptr [wanted], 100000
    test dword ptr [ebx], 1 << 2
    jz 9f
    mov esi, [ebx + 16]
    xor ebx, ebx                      /* start of the last word */
    mov ebx, esi
1:  lodsb
    test al, al
    jz 2f
    cmp al, ' '
    jne 1b
    mov ebx, esi
    jmp 1b
2:  mov esi, ebx
    xor ecx, ecx
3:  lodsb
    sub al, '0'
    cmp al, 9
    ja 4f
    movzx eax, al
    imul ecx, 10
    add ecx, eax
    jmp 3b
4:  cmp al, 0x100 - '0'               /* it was digits to the end */
    jne 9f
    test ecx, ecx
    jz 9f
    mov [wanted], ecx
9:  ret

report:
    PRINT ": "
    mov eax, [raised]
    call put_decimal
    PRINT " raised, "
    mov eax, [irq_counts + edi * 4]
    call put_decimal
    PRINT " delivered, "
    mov eax, [lost]
    call put_decimal
    PRINT " lost, "
    mov eax, [doubled]
    call put_decimal
    PRINT " doubled\n"
    mov eax, [lost]
    or eax, [doubled]
    or [bad], eax
    mov eax, [raised]
    sub eax, [irq_counts + edi * 4]
    or [bad], eax
    mov eax, [wanted]
    sub eax, [raised]
    or [bad], eax
    ret

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

.set LINES, 0x2000
.set SOURCE, 0x2020          /* +0 raise, +1 acknowledge, +4 count, +8 delay in ns, +C how often by itself */
.set LINE, 10
.set SOURCE_LINE, 5
.set IO_APIC, 0xFEC00000
.set APIC, 0xFEE00000
.set PM_TIMER, 0x608

.section .bss
.balign 4
wanted: .skip 4
raised: .skip 4
lost: .skip 4
overdue_looks: .skip 4
doubled: .skip 4
bad: .skip 4
seed: .skip 4
hook: .skip 4
kind: .skip 4
elcr: .skip 4
halts: .skip 4               /* waits whose number has one of these bits poll */
source: .skip 4              /* there is a source */

.section .text
.code32
.globl _start
_start:
    cli
    cld
    mov esp, offset stack_top
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

    /* The PIT at 18.2 Hz wakes a processor whose interrupt is lost. */
    mov al, 0x34
    out 0x43, al
    xor al, al
    out 0x40, al
    out 0x40, al

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

/* ELCR becomes AX. */
set_elcr:
    mov dx, 0x4D0
    out dx, al
    inc dx
    mov al, ah
    out dx, al
    ret

ioapic_write:
    movzx eax, al
    mov ds:[IO_APIC], eax
    mov ds:[IO_APIC + 0x10], edx
    ret

/* Every interrupt comes by here with its vector in EAX before it is acknowledged at the controller. */
interrupt_hook:
    cmp eax, VECTOR_PIC
    je nothing
    jmp [hook]
lower_the_line:                       /* a posted write; the EOI follows at once */
    mov dx, LINES + LINE
    xor al, al
    out dx, al
nothing:
    ret
acknowledge:                          /* the same at the source */
    mov dx, SOURCE + 1
    xor al, al
    out dx, al
    ret

raise_source:
    mov dx, SOURCE
    mov al, 1
    out dx, al
    ret
raise_later:                          /* up to 65 us after this acknowledgement of nothing */
    call random
    mov dx, SOURCE + 8
    out dx, eax
    mov dx, SOURCE + 12
    mov eax, 1
    out dx, eax
    jmp acknowledge

raise_level:
    mov dx, LINES + LINE
    mov al, 1
    out dx, al
    ret
raise_pulse:
    mov dx, LINES + LINE
    mov al, 1
    out dx, al
    xor al, al
    out dx, al
    ret
arm_timer:                            /* between 1 and 65536 counts: often due before the HLT */
    call random
    mov ds:[APIC + 0x380], eax
    ret

/* EAX: between 1 and 65536. */
random:
    imul eax, [seed], 1103515245
    add eax, 12345
    mov [seed], eax
    shr eax, 16
    inc eax
    ret

/* EAX: the ACPI timer, 24 bits. */
pm_read:
    mov dx, PM_TIMER
    in eax, dx
    and eax, 0xFFFFFF
    ret

/* Raises [wanted] interrupts of [kind], of which each must raise the count of vector EDI by one. */
storm:
    mov dword ptr [irq_counts + edi * 4], 0
    mov dword ptr [raised], 0
    mov dword ptr [lost], 0
    mov dword ptr [doubled], 0
1:  cli
    mov ebx, [irq_counts + edi * 4]
    inc ebx                           /* what the count must become */
    call [kind]
    inc dword ptr [raised]
    call pm_read
    mov ebp, eax
    mov dword ptr [overdue_looks], 0
    mov eax, [raised]
    test eax, [halts]
    jnz 4f

2:  cmp [irq_counts + edi * 4], ebx   /* halting: interrupts are off here */
    jae 6f
    sti
    hlt
    cli
    call overdue
    jnc 2b
    jmp 5f

4:  sti                               /* polling */
3:  mov ecx, 100000
7:  cmp [irq_counts + edi * 4], ebx
    jae 6f
    pause
    loop 7b
    call overdue
    jnc 3b
5:  inc dword ptr [lost]
    cmp dword ptr [lost], 3
    jae 9f

6:  sti                               /* a second one would come now */
    nop
    nop
    cli
    cmp [irq_counts + edi * 4], ebx
    jbe 8f
    inc dword ptr [doubled]
8:  mov eax, [raised]
    cmp eax, [wanted]
    jb 1b
9:  cli
    ret

/* Carry when more than two seconds of the machine's time have passed since EBP, and did so at each of the last 20 looks: after a host has
 * stood still, an interrupt is allowed the time that this processor needs for them. */
overdue:
    call pm_read
    sub eax, ebp
    and eax, 0xFFFFFF
    cmp eax, 7159090
    ja 1f
    clc
    ret
1:  inc dword ptr [overdue_looks]
    mov eax, 20
    cmp eax, [overdue_looks]
    ret

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

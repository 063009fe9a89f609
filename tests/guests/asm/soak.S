/* The workload of `quintet soak`: runs for ever, and whatever the machine loses, doubles or mixes up shows in what it prints.
 *
 * Each round raises interrupts of five kinds and counts them (storm.inc), writes and reads numbered sectors on the primary
 * master by bus master and by data register (soak_disk.inc), and ends with one line on COM1 whose every number the driver
 * (coordinator/src/soak/workload.rs) works out for itself. A frame (640x480, 32 bits) whose pixels follow from its number is
 * announced by a line "soak: frame N" and stands until the driver has looked at it and sent a number back. The PC speaker sounds in
 * odd rounds.
 *
 * Words of the command line, all optional: count=N interrupts of each kind and round (100), rounds=N ends it after N rounds
 * with isa-debug-exit 0, plant=WORD plants a fault for the driver to find: lost or doubled (an interrupt), skipped or
 * written-twice (a sector's write), torn (a frame).
 *
 * After a reset it starts anew, and finds on the disk what it wrote before. */
.include "pc.inc"
MULTIBOOT_HEADER
.include "text.inc"
.include "traps.inc"
.include "storm.inc"
.include "vbe.inc"
.include "soak_disk.inc"

.set WIDTH, 640
.set HEIGHT, 480
.set FRAME_STEP, 0x61C88647
.set PIXEL_STEP, 0x9E3779B1

.section .bss
.balign 4
rounds: .skip 4
round: .skip 4
plant: .skip 4               /* first letter of the fault's word */
source: .skip 4              /* the source of interrupts is there: not zero */
all_raised: .skip 4
all_delivered: .skip 4
all_lost: .skip 4
all_doubled: .skip 4
frame: .skip 4
typed: .skip 4               /* number that is being sent */
looked: .skip 4              /* the driver has looked at the frame, or there is none */

GUEST_START
    push ebx
    call traps_init
    UART_INIT
    mov dword ptr [text_row], ROWS    /* nothing but frames on the screen */
    pop ebx
    call read_command_line
    mov dword ptr [seed], 12345

    PIT_18HZ
    mov al, 0xB6                      /* counter 2: 440 Hz */
    out 0x43, al
    mov al, 2712 & 0xFF
    out 0x42, al
    mov al, 2712 >> 8
    out 0x42, al

    mov dword ptr ds:[APIC + 0x80], 0
    mov dword ptr ds:[APIC + 0xF0], 0x100 | VECTOR_SPURIOUS
    mov dword ptr ds:[APIC + 0x350], 0x700    /* LINT0: the 8259s */
    mov dword ptr ds:[APIC + 0x3E0], 0xB
    mov dword ptr ds:[APIC + 0x320], VECTOR_TIMER

    mov dx, SOURCE + 4
    in eax, dx
    inc eax
    mov [source], eax

    call find_adapter
    jnc 1f
    PRINT "soak: no display adapter\n"
    mov al, 1
    jmp leave_with
1:  mov eax, 4
    xor ebx, ebx
    call vbe_write
    mov eax, 1
    mov ebx, WIDTH
    call vbe_write
    mov eax, 2
    mov ebx, HEIGHT
    call vbe_write
    mov eax, 3
    mov ebx, 32
    call vbe_write
    mov eax, 4
    mov ebx, 0x41
    call vbe_write
    mov dx, 0x3DA
    in al, dx
    OUTB 0x3C0, 0x20
    mov dword ptr [looked], 1

    call disk_start
    PRINT "soak: start version "
    mov eax, [version]
    call put_decimal
    PRINT " kinds "
    call kinds
    call put_decimal
    PRINT " count "
    mov eax, [wanted]
    call put_decimal
    PRINT " bad "
    mov eax, [bad]
    call put_decimal
    PRINT "\n"

next_round:
    inc dword ptr [round]
    call speaker
    call storms
    call disk_round
    call listen
    call show
    call report
    mov eax, [rounds]
    test eax, eax
    jz next_round
    cmp eax, [round]
    ja next_round
    PRINT "soak: end\n"
    xor eax, eax
    jmp leave_with

/* EAX: how many kinds of interrupts a round raises. */
kinds:
    mov eax, 5
    cmp dword ptr [source], 0
    jne 1f
    mov eax, 2
1:  ret

report:
    PRINT "soak: round "
    mov eax, [round]
    call put_decimal
    PRINT " irqs "
    mov eax, [all_raised]
    call put_field
    mov eax, [all_delivered]
    call put_field
    mov eax, [all_lost]
    call put_field
    mov eax, [all_doubled]
    call put_decimal
    PRINT " ide "
    mov eax, [ide_expected]
    call put_field
    mov eax, [irq_counts + IDE_VECTOR * 4]
    call put_field
    mov eax, [ide_lost]
    call put_decimal
    PRINT " sectors "
    mov eax, [written]
    call put_field
    mov eax, [read]
    call put_field
    mov eax, [bad]
    call put_field
    mov eax, [ide_errors]
    call put_decimal
    PRINT " frame "
    mov eax, [frame]
    call put_decimal
    PRINT " sum "
    mov eax, [sum]
    mov cl, 8
    call put_hex
    PRINT "\n"
    ret

/* EAX in decimal and a space. */
put_field:
    call put_decimal
    mov al, ' '
    jmp putc

/* Sound in odd rounds. */
speaker:
    in al, 0x61
    or al, 3
    test dword ptr [round], 1
    jnz 1f
    and al, 0xFC
1:  out 0x61, al
    ret

/* Takes what the driver sent: the decimal number that is this start's and this frame's, on a line. */
listen:
    mov dx, COM1 + UART_LSR
    in al, dx
    test al, 1
    jz 9f
    mov dx, COM1
    in al, dx
    movzx eax, al
    sub eax, '0'
    cmp eax, 9
    ja 1f
    imul ecx, [typed], 10
    add ecx, eax
    mov [typed], ecx
    jmp listen
1:  mov eax, [first_version]          /* what was sent before a reset must not count after it */
    shl eax, 16
    add eax, [frame]
    cmp eax, [typed]
    mov dword ptr [typed], 0
    jne listen
    mov dword ptr [looked], 1
    jmp listen
9:  ret

/* Draws the next frame when the driver has looked at the one before. */
show:
    cmp dword ptr [looked], 0
    je 9f
    mov dword ptr [looked], 0
    inc dword ptr [frame]
    mov ecx, WIDTH * HEIGHT
    cmp dword ptr [frame], 2
    jne 1f
    cmp dword ptr [plant], 't'
    jne 1f
    shr ecx, 1                        /* planted: a frame of which half is the one before */
1:  mov edi, [lfb]
    imul eax, [frame], FRAME_STEP
2:  mov edx, eax
    shr edx, 8
    mov [edi], edx
    add edi, 4
    add eax, PIXEL_STEP
    dec ecx
    jnz 2b
    PRINT "soak: frame "
    mov eax, [frame]
    call put_decimal
    PRINT "\n"
9:  ret

/* One storm of each kind. */
storms:
    mov ax, 1 << SOURCE_LINE
    call set_elcr
    cmp dword ptr [source], 0
    je 1f
    mov al, 0xFA ^ (1 << SOURCE_LINE)
    out PIC1 + 1, al
    mov edi, VECTOR_PIC + SOURCE_LINE
    mov dword ptr [hook], offset acknowledge
    mov dword ptr [kind], offset raise_source
    mov dword ptr [halts], 1
    call counted_storm
    mov dword ptr [kind], offset raise_later
    mov dword ptr [halts], 0
    call counted_storm
    mov al, 0xFA                      /* lines 0, 2 */
    out PIC1 + 1, al

    mov al, 0x10 + SOURCE_LINE * 2 + 1
    mov edx, ds:[APIC + 0x20]
    call ioapic_write
    mov al, 0x10 + SOURCE_LINE * 2
    mov edx, 0x8000 | VECTOR_IOAPIC
    call ioapic_write
    mov edi, VECTOR_IOAPIC
    mov dword ptr [kind], offset raise_source
    mov dword ptr [halts], 1
    call counted_storm
    mov al, 0x10 + SOURCE_LINE * 2
    mov edx, 0x10000
    call ioapic_write

1:  mov al, 0xFA
    out PIC1 + 1, al
    mov al, 0xFF ^ (1 << (LINE - 8))
    out PIC2 + 1, al
    mov edi, VECTOR_PIC + LINE
    mov dword ptr [hook], offset nothing
    mov dword ptr [kind], offset raise_pulse
    mov dword ptr [halts], 1
    call plant_interrupt
    call counted_storm
    mov al, 0xFF
    out PIC2 + 1, al

    mov edi, VECTOR_TIMER
    mov dword ptr [hook], offset nothing
    mov dword ptr [kind], offset arm_timer
    mov dword ptr [halts], 0
    /* falls through */

/* A storm, added to the totals. */
counted_storm:
    call storm
    mov eax, [raised]
    add [all_raised], eax
    mov eax, [irq_counts + edi * 4]
    add [all_delivered], eax
    mov eax, [lost]
    add [all_lost], eax
    mov eax, [doubled]
    add [all_doubled], eax
    ret

/* In one round, a pulse that is announced and not made, or one that comes twice. */
plant_interrupt:
    cmp dword ptr [round], PLANTED_ROUND
    jne 1f
    cmp dword ptr [plant], 'l'
    jne 2f
    mov dword ptr [kind], offset announce_a_pulse
2:  cmp dword ptr [plant], 'd'
    jne 1f
    mov dword ptr [hook], offset pulse_again
1:  ret
announce_a_pulse:
    mov dword ptr [kind], offset raise_pulse
    ret
pulse_again:
    mov dword ptr [hook], offset nothing
    push edx
    call raise_pulse
    pop edx
    ret

/* Takes the words of the multiboot command line. */
read_command_line:
    mov dword ptr [wanted], 100
    test dword ptr [ebx], 1 << 2
    jz 9f
    mov ebx, [ebx + 16]
    mov esi, offset word_count
    call find_word
    jc 1f
    call parse_number
    mov [wanted], eax
1:  mov esi, offset word_rounds
    call find_word
    jc 2f
    call parse_number
    mov [rounds], eax
2:  mov esi, offset word_plant
    call find_word
    jc 9f
    movzx eax, byte ptr [edi]
    mov [plant], eax
9:  ret

/* EDI: behind the first place in the text at EBX where the text at ESI stands; carry when there is none. */
find_word:
    mov edx, ebx
1:  mov edi, edx
    mov ecx, esi
2:  mov al, [ecx]
    test al, al
    jz 4f                             /* carry is clear */
    cmp al, [edi]
    jne 3f
    inc ecx
    inc edi
    jmp 2b
3:  cmp byte ptr [edx], 0
    je 5f
    inc edx
    jmp 1b
4:  ret
5:  stc
    ret

/* EAX: the decimal number at EDI. */
parse_number:
    xor eax, eax
1:  movzx ecx, byte ptr [edi]
    sub ecx, '0'
    cmp ecx, 9
    ja 2f
    imul eax, 10
    add eax, ecx
    inc edi
    jmp 1b
2:  ret

.section .rodata
word_count: .asciz "count="
word_rounds: .asciz "rounds="
word_plant: .asciz "plant="

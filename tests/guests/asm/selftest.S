/* Tests the machine from inside, prints what it found in colour on the VGA screen and without on COM1, and
 * then echoes what is typed on the keyboard and on the line. 'q' ends through ACPI S5. For scripts, the verdict
 * is a line of its own: "selftest: N checks passed, M failed". */
.include "pc.inc"
MULTIBOOT_HEADER
.include "text.inc"
.include "traps.inc"

/* PRINT that keeps ESI */
.macro PUSH_PRINT text:vararg
    push esi
    PRINT \text
    pop esi
.endm

.section .bss
.balign 4
passed: .skip 4
failed: .skip 4
usable: .skip 8
seconds: .skip 4

GUEST_START
    push eax                          /* the loader's magic, a check of its own */
    mov [multiboot_info], ebx
    mov esi, offset real_load
    mov edi, REAL_BASE
    mov ecx, offset real_end
    rep movsb
    call traps_init
    fninit
    UART_INIT
    call text_clear
    call hide_cursor
    call title
    mov dword ptr [text_row], 2
    call find_features

    PRINT "\2 Processor\1\t\014"
    call processor
    inc dword ptr [text_row]           /* a gap, on the screen only */
    PRINT "\n\2 Modes\1\t\014real"
    call test_real
    call verdict
    PRINT "  protected"
    call test_protected
    call verdict
    PRINT "  virtual-8086"
    call test_v86
    call verdict
    PRINT "  PAE paging"
    call test_pae
    call verdict
    PRINT "  long"
    call test_long
    call verdict

    inc dword ptr [text_row]           /* a gap, on the screen only */
    PRINT "\n\2 Memory\1\t\014"
    call memory
    PRINT "  multiboot"
    pop ebx
    xor eax, eax
    cmp ebx, 0x2BADB002
    sete al
    call verdict
    call memory_map

    inc dword ptr [text_row]           /* a gap, on the screen only */
    PRINT "\n\2 Clocks\1\t\014"
    call measure_clocks
    PRINT "PIT "
    mov eax, [pit_ns]
    call put_deviation
    call pit_ok
    call verdict
    PRINT "  RTC "
    mov eax, [rtc_ns]
    call put_deviation
    call rtc_ok
    call verdict
    cmp dword ptr [has_hpet], 0
    je 1f
    PRINT "  HPET "
    mov eax, [hpet_ns]
    call put_deviation
    jmp 2f
1:  PRINT "  HPET"
2:  call hpet_ok
    call verdict
    PRINT "  by the ACPI timer\n\t\014TSC "
    mov eax, [tsc_khz]
    call put_mhz
    call tsc_ok
    call verdict
    PRINT "  local APIC "
    mov eax, [apic_khz]
    call put_mhz
    call apic_ok
    call verdict

    inc dword ptr [text_row]           /* a gap, on the screen only */
    PRINT "\n\2 Interrupts\1\t\0148259"
    call test_pic
    call verdict
    PRINT "  I/O APIC"
    call test_ioapic
    call verdict
    PRINT "  APIC timer"
    call test_apic_timer
    call verdict
    PRINT "  self-IPI"
    call test_self_ipi
    call verdict

    inc dword ptr [text_row]           /* a gap, on the screen only */
    PRINT "\n\2 PCI\1\t\014"
    PRINT "host bridge"
    call test_pci
    call verdict
    call list_pci
    mov al, '\n'
    call putc

    call rule
    PRINT "\3"
    cmp dword ptr [failed], 0
    je 1f
    PRINT "\4"
1:  inc dword ptr [text_col]
    PRINT "selftest: "
    mov eax, [passed]
    call put_decimal
    PRINT " checks passed, "
    mov eax, [failed]
    call put_decimal
    PRINT " failed\n"
    jmp echo

/* " ok", " failed" or " none" for EAX of 1, 0 or 2, counted; a check mark on the screen for the first. */
verdict:
    cmp eax, 1
    je 1f
    test eax, eax
    je 2f
    PRINT "\5 none\1"
    ret
1:  inc dword ptr [passed]
    PRINT "\3 "
    mov al, 0xFB                      /* CP437: a check mark */
    call screen_putc
    mov al, 'o'
    call serial_putc
    mov al, 'k'
    call serial_putc
    PRINT "\1"
    ret
2:  inc dword ptr [failed]
    PRINT "\4 failed\1"
    ret

/* A dim line across the screen. */
rule:
    pushad
    imul edi, [text_row], COLUMNS * 2
    mov ecx, COLUMNS
    mov ax, 0x08C4                    /* CP437: a horizontal line */
    add edi, VGA
    rep stosw
    inc dword ptr [text_row]
    popad
    ret

/* The name the processor gives itself: brand, else vendor, else its lack of CPUID. */
processor:
    mov esi, offset brand
    cmp byte ptr [esi], 0
    je 2f
1:  lodsb
    cmp al, ' '
    je 1b
    dec esi
    jmp puts
2:  cmp dword ptr [features_edx], 0
    je 3f
    xor eax, eax
    cpuid
    mov [brand], ebx
    mov [brand + 4], edx
    mov [brand + 8], ecx
    mov esi, offset brand
    call puts
    PRINT " family "
    mov eax, 1
    cpuid
    mov ebx, eax
    shr eax, 8
    and eax, 15
    call put_decimal
    PRINT " model "
    mov eax, ebx
    shr eax, 4
    and eax, 15
    jmp put_decimal
3:  PRINT "without CPUID"
    ret

title:
    pushad
    mov edi, VGA
    mov ecx, COLUMNS
    mov ax, 0x1F20
    rep stosw
    popad
    PRINT "\7 QUINTET\t\014"
    PRINT "this machine, tested from inside\n\1"
    ret

hide_cursor:
    mov dx, 0x3D4
    mov ax, 0x200A
    out dx, ax
    ret

/* How much the loader's memory map calls usable. A range counts as RAM if its last word below 4 GiB
   holds what is written to it. */
memory:
    mov esi, [multiboot_info]
    test dword ptr [esi], 1 << 6
    jz 9f
    mov ebx, [esi + 48]
    mov edi, [esi + 44]
    add edi, ebx
    xor ebp, ebp                      /* ranges that are not RAM */
1:  cmp ebx, edi
    jae 4f
    cmp dword ptr [ebx + 20], 1
    jne 3f
    mov eax, [ebx + 12]
    add [usable], eax
    mov eax, [ebx + 16]
    adc [usable + 4], eax
    cmp dword ptr [ebx + 8], 0
    jne 3f
    cmp dword ptr [ebx + 16], 0
    jne 3f
    mov eax, [ebx + 4]
    add eax, [ebx + 12]
    mov ecx, [eax - 4]
    mov dword ptr [eax - 4], 0x5AA51234
    wbinvd
    cmp dword ptr [eax - 4], 0x5AA51234
    je 2f
    inc ebp
2:  mov [eax - 4], ecx
3:  add ebx, [ebx]
    add ebx, 4
    jmp 1b
4:  mov eax, [usable]
    mov edx, [usable + 4]
    shrd eax, edx, 10
    call put_decimal
    PRINT " KiB usable"
    xor eax, eax
    test ebp, ebp
    sete al
    jmp verdict
9:  PRINT "no map"
    xor eax, eax
    jmp verdict

/* The first six ranges, two a line. */
memory_map:
    mov esi, [multiboot_info]
    test dword ptr [esi], 1 << 6
    jz 8f
    mov ebx, [esi + 48]
    mov edi, [esi + 44]
    add edi, ebx
    xor ebp, ebp
5:  cmp ebx, edi
    jae 8f
    cmp ebp, 6
    jae 8f
    test ebp, 1
    jz 6f
    PRINT "\t\056"
    jmp 7f
6:  PRINT "\n\t\014"
7:  PRINT "\5"
    mov cl, 2
    mov eax, [ebx + 8]
    call put_hex
    mov cl, 8
    mov eax, [ebx + 4]
    call put_hex
    PRINT " + "
    mov eax, [ebx + 16]
    mov cl, 1
    call put_hex
    mov eax, [ebx + 12]
    mov cl, 8
    call put_hex
    mov eax, [ebx + 20]
    cmp eax, 5
    jb 1f
    mov eax, 2
1:  mov esi, [kinds + eax * 4]
    call puts
    inc ebp
    add ebx, [ebx]
    add ebx, 4
    jmp 5b
8:  ret

.section .rodata
.balign 4
kinds: .long kind_2, kind_1, kind_2, kind_3, kind_4
kind_1: .asciz " \3usable\1"
kind_2: .asciz " \1reserved"
kind_3: .asciz " \1ACPI"
kind_4: .asciz " \1NVS"

.include "selftest_modes.inc"
.include "selftest_clocks.inc"
.include "selftest_irqs.inc"
.include "selftest_pci.inc"
.include "selftest_echo.inc"

/* Time: the tick (INT 08h, 1Ch), the RTC's interrupt (70h), waits by the ACPI timer, and INT 1Ah. */
.include "defs.inc"
.code16
.section .text16, "ax"
.set DAY, 0x1800B0                  /* ticks */

.globl int08
int08:
    push eax
    push dx
    push ds
    push 0x40
    pop ds
    mov eax, ds:[BDA_TICKS]
    inc eax
    cmp eax, DAY
    jb 1f
    xor eax, eax
    inc byte ptr ds:[BDA_MIDNIGHT]
1:  mov ds:[BDA_TICKS], eax
    cmp byte ptr ds:[BDA_FD_TIMEOUT], 0     /* the diskette motors stop some time after the last use */
    je 2f
    dec byte ptr ds:[BDA_FD_TIMEOUT]
    jnz 2f
    mov dx, 0x3F2
    mov al, 0x0C
    out dx, al
    and byte ptr ds:[BDA_FD_MOTOR], 0xF0
2:  int 0x1C
    cli
    mov al, 0x20
    out PIC1, al
    pop ds
    pop dx
    pop eax
    iret

/* The RTC: the alarm is INT 4Ah, the periodic interrupt counts an event wait down (INT 15h AH=83h). */
.globl int70
int70:
    push ax
    push bx
    push ds
    push 0x40
    pop ds
    CMOS_READ 0x0B
    mov ah, al
    CMOS_READ 0x0C
    and al, ah
    mov ah, al
    test ah, 0x20
    jz 1f
    push ax
    sti
    int 0x4A
    cli
    pop ax
1:  test ah, 0x40
    jz 2f
    test byte ptr ds:[BDA_WAIT_ACTIVE], 1
    jz 2f
    sub dword ptr ds:[BDA_WAIT_COUNT], 976
    ja 2f
    mov dword ptr ds:[BDA_WAIT_COUNT], 0
    push ds
    lds bx, ds:[BDA_WAIT_FLAG]
    or byte ptr ds:[bx], 0x80
    pop ds
    mov byte ptr ds:[BDA_WAIT_ACTIVE], 0
    call periodic_off
2:  mov al, 0x20
    out PIC2, al
    out PIC1, al
    pop ds
    pop bx
    pop ax
    iret

.globl periodic_on, periodic_off
periodic_on:
    CMOS_READ 0x0B
    or al, 0x40
    jmp 1f
periodic_off:
    CMOS_READ 0x0B
    and al, 0xBF
1:  mov ah, al
    mov al, 0x0B
    jmp cmos_write

/* A wait of EDX counts of the power management timer begins; ECX keeps where it stands. */
.globl timer_start, timer_passed
timer_start:
    push eax
    push dx
    mov dx, PM_TIMER
    in eax, dx
    mov ecx, eax
    pop dx
    pop eax
    ret

/* Is it over (carry)? Asked at least every four seconds: the timer has 24 bits. */
timer_passed:
    push eax
    push ebx
    mov ebx, edx
    mov dx, PM_TIMER
    in eax, dx
    mov edx, ebx
    mov ebx, eax
    sub eax, ecx
    mov ecx, ebx
    and eax, 0xFFFFFF
    sub edx, eax
    pop ebx
    pop eax
    jc 1f
    jz 1f
    clc
    ret
1:  stc
    ret

/* EAX milliseconds. */
.globl wait_ms
wait_ms:
    pushad
    imul edx, eax, PM_TIMER_MS
    call timer_start
1:  call timer_passed
    jnc 1b
    popad
    ret

.globl int1a
int1a:
    ENTER
    sti
    movzx bx, byte ptr [bp + F_AH]
    cmp bl, 0xB1
    je 1f
    cmp bl, 8
    jae 2f
    shl bx, 1
    call cs:[functions1a + bx]
    LEAVE
1:  call pci_bios
    LEAVE
2:  SET_CARRY
    LEAVE

.section .rodata16, "a"
functions1a:
    .word ticks_get, ticks_set, time_get, time_set, date_get, date_set, alarm_set, alarm_off

.section .text16, "ax"
ticks_get:
    cli
    mov eax, ds:[BDA_TICKS]
    mov [bp + F_EDX], ax
    shr eax, 16
    mov [bp + F_ECX], ax
    xor al, al
    xchg al, ds:[BDA_MIDNIGHT]
    mov [bp + F_AL], al
    mov byte ptr [bp + F_AH], 0
    CLEAR_CARRY
    ret
ticks_set:
    cli
    mov ax, [bp + F_ECX]
    shl eax, 16
    mov ax, [bp + F_EDX]
    mov ds:[BDA_TICKS], eax
    mov byte ptr ds:[BDA_MIDNIGHT], 0
    mov byte ptr [bp + F_AH], 0
    CLEAR_CARRY
    ret

/* Waits until the clock is not being updated; carry when it stands. */
updating:
    push cx
    xor cx, cx
1:  CMOS_READ 0x0A
    test al, 0x80
    jz 2f
    loop 1b
    stc
    pop cx
    ret
2:  clc
    pop cx
    ret

time_get:
    call updating
    jc failed1a
    CMOS_READ 0
    mov [bp + F_DH], al
    CMOS_READ 2
    mov [bp + F_CL], al
    CMOS_READ 4
    mov [bp + F_CH], al
    CMOS_READ 0x0B
    and al, 1
    mov [bp + F_DL], al
    jmp good1a
time_set:
    call clock_stop
    mov ah, [bp + F_DH]
    mov al, 0
    call cmos_write
    mov ah, [bp + F_CL]
    mov al, 2
    call cmos_write
    mov ah, [bp + F_CH]
    mov al, 4
    call cmos_write
    CMOS_READ 0x0B
    and al, 0x60
    mov ah, [bp + F_DL]
    and ah, 1
    or al, ah
    or al, 2
    mov ah, al
    mov al, 0x0B
    call cmos_write
    mov [bp + F_AL], ah
good1a:
    mov byte ptr [bp + F_AH], 0
    CLEAR_CARRY
    ret
failed1a:
    SET_CARRY
    ret
clock_stop:
    CMOS_READ 0x0B
    or al, 0x80
    mov ah, al
    mov al, 0x0B
    jmp cmos_write
date_get:
    mov word ptr [bp + F_ECX], 0
    mov word ptr [bp + F_EDX], 0
    call updating
    jc failed1a
    CMOS_READ 9
    mov [bp + F_CL], al
    CMOS_READ 8
    mov [bp + F_DH], al
    CMOS_READ 7
    mov [bp + F_DL], al
    CMOS_READ 0x32
    mov [bp + F_CH], al
    mov [bp + F_AL], al
    jmp good1a
date_set:
    call clock_stop
    mov ah, [bp + F_CL]
    mov al, 9
    call cmos_write
    mov ah, [bp + F_DH]
    mov al, 8
    call cmos_write
    mov ah, [bp + F_DL]
    mov al, 7
    call cmos_write
    mov ah, [bp + F_CH]
    mov al, 0x32
    call cmos_write
    CMOS_READ 0x0B
    and al, 0x7F
    mov ah, al
    mov al, 0x0B
    call cmos_write
    mov [bp + F_AL], ah
    jmp good1a
alarm_set:
    CMOS_READ 0x0B
    test al, 0x20
    jnz failed1a                    /* one is set */
    call updating
    mov ah, [bp + F_DH]
    mov al, 1
    call cmos_write
    mov ah, [bp + F_CL]
    mov al, 3
    call cmos_write
    mov ah, [bp + F_CH]
    mov al, 5
    call cmos_write
    in al, PIC2 + 1
    and al, 0xFE
    out PIC2 + 1, al
    CMOS_READ 0x0B
    and al, 0x7F
    or al, 0x20
    mov ah, al
    mov al, 0x0B
    call cmos_write
    jmp good1a
alarm_off:
    CMOS_READ 0x0B
    and al, 0x57
    mov ah, al
    mov al, 0x0B
    call cmos_write
    mov [bp + F_AL], ah
    jmp good1a

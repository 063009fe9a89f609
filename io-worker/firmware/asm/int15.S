/* INT 15h: system services. */
.include "defs.inc"
.code16
.section .text16, "ax"
.set UNSUPPORTED, 0x86

.globl int15
int15:
    cmp ah, 0x4F                    /* the keyboard's hook: nothing taken, carry stays */
    je 1f
    ENTER
    movzx bx, byte ptr [bp + F_AH]
    mov si, offset functions15
2:  mov al, cs:[si]
    test al, al
    jz 3f
    cmp al, bl
    je 4f
    add si, 3
    jmp 2b
4:  jmp cs:[si + 1]
3:  jmp unsupported
1:  push bp
    mov bp, sp
    or byte ptr [bp + 6], 1
    pop bp
    iret

.section .rodata16, "a"
.macro FN number, entry
    .byte \number
    .word \entry
.endm
functions15:
    FN 0x24, a20
    FN 0x53, apm
    FN 0x80, good15
    FN 0x81, good15
    FN 0x82, good15
    FN 0x83, event_wait
    FN 0x84, joystick
    FN 0x85, good15
    FN 0x86, wait
    FN 0x87, block_move
    FN 0x88, extended_memory
    FN 0x89, protected_mode
    FN 0x90, device_busy
    FN 0x91, good15
    FN 0xC0, get_configuration
    FN 0xC1, get_ebda
    FN 0xC2, pointing_device
    FN 0xE8, memory_maps
    .byte 0

.section .text16, "ax"
.globl unsupported, good15, fail15
unsupported:
    mov ah, UNSUPPORTED
fail15:
    mov [bp + F_AH], ah
    SET_CARRY
    LEAVE
good15:
    mov byte ptr [bp + F_AH], 0
    CLEAR_CARRY
    LEAVE

device_busy:
    CLEAR_CARRY
    mov byte ptr [bp + F_AH], 0
    LEAVE

/* 24h: the A20 gate, by port 92h. */
a20:
    mov bl, [bp + F_AL]
    in al, 0x92
    cmp bl, 1
    ja 2f
    and al, 0xFC
    shl bl, 1
    or al, bl
    out 0x92, al
    jmp good15
2:  cmp bl, 2
    jne 3f
    shr al, 1
    and al, 1
    mov [bp + F_AL], al
    jmp good15
3:  cmp bl, 3
    jne unsupported
    mov word ptr [bp + F_EBX], 3    /* keyboard controller and port 92h */
    jmp good15

joystick:
    cmp word ptr [bp + F_EDX], 1
    ja unsupported
    mov ax, 0
    mov [bp + F_EAX], ax
    jb 1f
    mov [bp + F_EBX], ax
    mov [bp + F_ECX], ax
    mov [bp + F_EDX], ax
1:  jmp unsupported                 /* there is no game port */

/* 83h: a bit set after CX:DX microseconds; AL = 1 ends that. */
event_wait:
    mov al, [bp + F_AL]
    cmp al, 1
    ja unsupported
    je 2f
    test byte ptr ds:[BDA_WAIT_ACTIVE], 1
    mov ah, 0x83
    jnz fail15
    cli
    mov ax, [bp + F_EBX]
    mov ds:[BDA_WAIT_FLAG], ax
    mov ax, [bp + F_ES]
    mov ds:[BDA_WAIT_FLAG + 2], ax
    mov ax, [bp + F_EDX]
    mov ds:[BDA_WAIT_COUNT], ax
    mov ax, [bp + F_ECX]
    mov ds:[BDA_WAIT_COUNT + 2], ax
    mov byte ptr ds:[BDA_WAIT_ACTIVE], 1
    in al, PIC2 + 1
    and al, 0xFE
    out PIC2 + 1, al
    call periodic_on
    jmp good15
2:  mov byte ptr ds:[BDA_WAIT_ACTIVE], 0
    call periodic_off
    jmp good15

/* 86h: CX:DX microseconds. */
wait:
    test byte ptr ds:[BDA_WAIT_ACTIVE], 1
    mov ah, 0x83
    jnz fail15
    sti
    mov ax, [bp + F_ECX]
    shl eax, 16
    mov ax, [bp + F_EDX]
    mov ebx, 3579545
    mul ebx
    mov ebx, 1000000
    div ebx                         /* below 2^32 * 3.58 / 10^6 in the upper half: it cannot overflow by much */
    mov edx, eax
    call timer_start
1:  call timer_passed
    jnc 1b
    jmp good15

/* 87h: CX words between the segments of the caller's table at ES:SI, anywhere below 4 GiB. */
block_move:
    cmp word ptr [bp + F_ECX], 0x8000
    mov ah, 2
    ja fail15
    cli
    mov es, [bp + F_ES]
    mov si, [bp + F_ESI]
    movzx eax, word ptr [bp + F_ES]
    shl eax, 4
    movzx edx, si
    add eax, edx
    mov word ptr es:[si + 0x08], 0x2F       /* the table itself */
    mov es:[si + 0x0A], eax
    mov word ptr es:[si + 0x0E], 0
    mov byte ptr es:[si + 0x0D], 0x93
    shr eax, 24
    mov es:[si + 0x0F], al
    mov word ptr es:[si + 0x20], 0xFFFF     /* our code */
    mov dword ptr es:[si + 0x22], 0x9B0F0000
    mov word ptr es:[si + 0x26], 0
    mov word ptr es:[si + 0x28], 0xFFFF     /* data as real mode knows it */
    mov dword ptr es:[si + 0x2A], 0x93000000
    mov word ptr es:[si + 0x2E], 0
    in al, 0x92
    mov bl, al
    or al, 2
    and al, 0xFE
    out 0x92, al
    lgdt es:[si + 0x08]             /* 24 bits of address: the fourth byte is the access byte */
    movzx ecx, word ptr [bp + F_ECX]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    ljmp 0x20, offset 1f
1:  mov ax, 0x10
    mov ds, ax
    mov ax, 0x18
    mov es, ax
    xor si, si
    xor di, di
    shr cx, 1
    rep movsd
    adc cx, 0
    rep movsw
    mov ax, 0x28
    mov ds, ax
    mov es, ax
    mov eax, cr0
    and al, 0xFE
    mov cr0, eax
    ljmp 0xF000, offset 2f
2:  mov al, bl
    and al, 0xFE
    out 0x92, al
    jmp good15

/* 88h: KiB above 1 MiB, 63 MiB at most. */
extended_memory:
    mov eax, cs:[tables_bottom]
    cmp eax, 64 << 20
    jbe 1f
    mov eax, 64 << 20
1:  sub eax, 1 << 20
    shr eax, 10
    mov [bp + F_EAX], ax
    CLEAR_CARRY
    LEAVE

/* 89h: to protected mode with the caller's tables (ES:SI), the 8259s at BH and BL. Comes back there, in its segment 30h. */
protected_mode:
    cli
    mov es, [bp + F_ES]
    mov si, [bp + F_ESI]
    mov al, 0x11
    out PIC1, al
    out PIC2, al
    mov al, [bp + F_BH]
    out PIC1 + 1, al
    mov al, [bp + F_BL]
    out PIC2 + 1, al
    mov al, 4
    out PIC1 + 1, al
    mov al, 2
    out PIC2 + 1, al
    mov al, 1
    out PIC1 + 1, al
    out PIC2 + 1, al
    mov al, 0xFF
    out PIC1 + 1, al
    out PIC2 + 1, al
    in al, 0x92
    or al, 2
    and al, 0xFE
    out 0x92, al
    mov word ptr es:[si + 0x38], 0xFFFF     /* our code */
    mov dword ptr es:[si + 0x3A], 0x9B0F0000
    mov word ptr es:[si + 0x3E], 0
    lgdt es:[si + 0x08]
    lidt es:[si + 0x10]
    mov bx, [bp + F_IP]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    ljmp 0x38, offset 1f
1:  mov ax, 0x28
    mov ss, ax
    mov ax, 0x18
    mov ds, ax
    mov ax, 0x20
    mov es, ax
    lea sp, [bp + F_FLAGS + 2]
    push 0x30
    push bx
    xor ah, ah
    retf

get_configuration:
    mov [bp + F_ES], cs
    mov word ptr [bp + F_EBX], offset configuration
    jmp good15

get_ebda:
    mov ax, ds:[BDA_EBDA]
    mov [bp + F_ES], ax
    CLEAR_CARRY
    LEAVE

memory_maps:
    cmp byte ptr [bp + F_AL], 0x20
    je e820
    cmp byte ptr [bp + F_AL], 1
    jne unsupported
    mov eax, cs:[tables_bottom]     /* E801h: KiB between 1 and 16 MiB, units of 64 KiB above */
    xor edx, edx
    cmp eax, 16 << 20
    jbe 1f
    mov edx, eax
    sub edx, 16 << 20
    shr edx, 16
    mov eax, 16 << 20
1:  sub eax, 1 << 20
    shr eax, 10
    mov [bp + F_EAX], ax
    mov [bp + F_ECX], ax
    mov [bp + F_EBX], dx
    mov [bp + F_EDX], dx
    CLEAR_CARRY
    LEAVE

e820:
    mov eax, [bp + F_EDX]
    cmp eax, 0x534D4150
    jne unsupported
    mov ecx, [bp + F_ECX]
    cmp ecx, 20
    jb unsupported
    mov ebx, [bp + F_EBX]
    movzx edx, word ptr cs:[e820_length]
    imul esi, ebx, 20
    cmp ebx, 64
    jae unsupported
    cmp esi, edx
    jae unsupported
    mov [bp + F_EAX], eax
    mov dword ptr [bp + F_ECX], 20
    lea edi, [esi + 20]
    inc ebx
    cmp edi, edx
    jb 1f
    xor ebx, ebx
1:  mov [bp + F_EBX], ebx
    mov es, [bp + F_ES]
    mov di, [bp + F_EDI]
    add si, offset e820_table
    mov cx, 5
    rep movsd es:[di], cs:[si]
    CLEAR_CARRY
    LEAVE

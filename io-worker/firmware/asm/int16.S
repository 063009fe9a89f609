/* INT 16h: what the keyboard's buffer holds. */
.include "defs.inc"
.code16
.section .text16, "ax"

.globl int16
int16:
    ENTER
    mov al, [bp + F_AH]
    cmp al, 0x13
    jae 1f
    movzx bx, al
    shl bx, 1
    call cs:[functions16 + bx]
    LEAVE
1:  cmp al, 0x92                    /* keyboards' abilities, as keyboard drivers ask (RBIL 16-92, 16-A2) */
    jne 2f
    mov byte ptr [bp + F_AH], 0x80
    LEAVE
2:  cmp al, 0xA2
    jne 3f
    and byte ptr [bp + F_AH], 0
3:  LEAVE

.section .rodata16, "a"
functions16:
    .word read_old, test_old, shifts, typematic, none16, store, none16, none16, none16, abilities, keyboard_id
    .word none16, none16, none16, none16, none16, read_new, test_new, shifts_new

.section .text16, "ax"
none16:
    ret

/* Removes the first code: AX. Waits for one, the processor halted. */
take:
    sti
1:  cli
    call set_leds
    mov bx, ds:[BDA_KBD_HEAD]
    cmp bx, ds:[BDA_KBD_TAIL]
    jne 2f
    sti
    hlt
    jmp 1b
2:  mov ax, ds:[bx]
    add bx, 2
    cmp bx, ds:[BDA_KBD_END]
    jb 3f
    mov bx, ds:[BDA_KBD_START]
3:  mov ds:[BDA_KBD_HEAD], bx
    sti
    ret

/* What the enhanced keyboard's codes were on the old one. */
older:
    cmp al, 0xE0
    jne 1f
    test ah, ah                     /* 00E0h is a letter of the Alt keypad */
    jz 9f
    xor al, al
9:  ret
1:  cmp ah, 0xE0
    jne 9b
    mov ah, 0x35
    cmp al, '/'
    je 9b
    mov ah, 0x1C
    ret

read_old:
    call take
    call older
    mov [bp + F_EAX], ax
    ret
read_new:
    call take
    mov [bp + F_EAX], ax
    ret

test_old:
    call look
    jz 1f
    call older
    mov [bp + F_EAX], ax
1:  ret
test_new:
    call look
    jz 1f
    mov [bp + F_EAX], ax
1:  ret
/* The first code in AX, zero flag (the caller's, too) when there is none. */
look:
    cli
    call set_leds
    sti
    nop                             /* an interrupt that waits gets in */
    cli
    or byte ptr [bp + F_FLAGS], 0x40
    mov bx, ds:[BDA_KBD_HEAD]
    cmp bx, ds:[BDA_KBD_TAIL]
    je 1f
    and byte ptr [bp + F_FLAGS], 0xBF
    mov ax, ds:[bx]
    or bx, bx                       /* not zero */
1:  ret

shifts:
    mov al, ds:[BDA_SHIFT]
    mov [bp + F_AL], al
    ret
shifts_new:
    mov al, ds:[BDA_SHIFT]
    mov [bp + F_AL], al
    mov ah, ds:[BDA_SHIFT + 1]      /* bit 7 is SysRq there, bits 3, 2 come from 96h */
    mov al, ah
    and ah, 0x73
    and al, 4
    shl al, 5
    or ah, al
    mov al, ds:[BDA_KBD_FLAGS3]
    and al, 0x0C
    or ah, al
    mov [bp + F_AH], ah
    ret

/* 03h: typematic rate (AL = 5, BH delay 0 to 3, BL rate 0 to 1Fh). */
typematic:
    cmp byte ptr [bp + F_AL], 5
    jne 9f
    mov al, [bp + F_BH]
    and al, 3
    shl al, 5
    mov ah, [bp + F_BL]
    and ah, 0x1F
    or ah, al
    cli
    mov al, 0xF3
    call kbc_wait_in
    out KBC_DATA, al
    push ax
    mov ah, 2
    call kbc_read
    pop ax
    mov al, ah
    call kbc_wait_in
    out KBC_DATA, al
    mov ah, 2
    call kbc_read
    sti
9:  ret

store:                              /* 05h: CX to the buffer */
    mov ax, [bp + F_ECX]
    cli
    call key_store
    setc al
    mov [bp + F_AL], al
    ret

abilities:                          /* 09h: typematic, 0Ah, 10h to 12h */
    mov byte ptr [bp + F_AL], 0x30
    ret

keyboard_id:                        /* 0Ah: MF2, translated */
    mov word ptr [bp + F_EBX], 0x41AB
    ret

/* The keyboard's interrupt (INT 09h): scan codes of set 1 to codes in the buffer, and the keys that only change flags. */
.include "defs.inc"
.code16
.section .text16, "ax"

/* Flags at 17h */
.set RIGHT_SHIFT, 1
.set LEFT_SHIFT, 2
.set CTRL, 4
.set ALT, 8
.set NUM_LOCK, 0x20
.set CAPS_LOCK, 0x40
.set INSERT, 0x80
/* Flags at 96h */
.set LAST_E1, 1
.set LAST_E0, 2
.set RIGHT_CTRL, 4
.set RIGHT_ALT, 8

/* Waits until the controller takes a byte; carry when it never does. */
.globl kbc_wait_in
kbc_wait_in:
    push cx
    push ax
    xor cx, cx
1:  in al, KBC_STATUS
    test al, 2
    jz 2f
    loop 1b
    stc
    jmp 3f
2:  clc
3:  pop ax
    pop cx
    ret

/* Waits up to about AH/8 s for a byte: AL, carry when none comes. */
.globl kbc_read
kbc_read:
    push ecx
    push edx
    movzx edx, ah
    imul edx, edx, PM_TIMER_MS * 128
    call timer_start
1:  in al, KBC_STATUS
    test al, 1
    jnz 2f
    call timer_passed
    jnc 1b
    jmp 3f
2:  in al, KBC_DATA
    clc
3:  pop edx
    pop ecx
    ret

/* AL as a command to the controller. */
.globl kbc_command
kbc_command:
    call kbc_wait_in
    out KBC_STATUS, al
    ret

/* AL to the keyboard, and its answer: carry when it is not FAh. */
kbd_send:
    push ax
    call kbc_wait_in
    out KBC_DATA, al
    mov ah, 2
    call kbc_read
    jc 1f
    cmp al, 0xFA
    je 1f
    stc
1:  pop ax
    ret

/* Controller and keyboard from power on: tests, reset, translation, interrupt 1. */
.globl keyboard_init
keyboard_init:
    cli
    mov al, 0xAD                    /* both devices off while the controller is asked */
    call kbc_command
    mov al, 0xA7
    call kbc_command
    mov cx, 64
1:  in al, KBC_STATUS
    test al, 1
    jz 2f
    in al, KBC_DATA
    loop 1b
2:  mov al, 0xAA
    call kbc_command
    mov ah, 4
    call kbc_read
    jc 9f
    mov al, 0xAE
    call kbc_command
    mov al, 0xFF                    /* the keyboard's own test */
    call kbd_send
    jc 3f
    mov ah, 8
    call kbc_read
    mov al, 0xF4
    call kbd_send
3:  mov al, 0x60
    call kbc_command
    call kbc_wait_in
    mov al, 0x61                    /* translation, mouse off, interrupt 1, no test flag yet */
    or al, 4
    out KBC_DATA, al
    push 0x40
    pop ds
    call set_leds
9:  sti
    ret

/* Shows the lock keys' state (17h) on the keyboard if it is not what 97h says; DS is the data area, interrupts off. */
.globl set_leds
set_leds:
    push ax
    mov al, ds:[BDA_SHIFT]
    shr al, 4
    and al, 7
    mov ah, ds:[BDA_KBD_LEDS]
    xor ah, al
    test ah, 7
    jz 9f
    and byte ptr ds:[BDA_KBD_LEDS], 0xF8
    or ds:[BDA_KBD_LEDS], al
    push ax
    mov al, 0xED
    call kbd_send
    pop ax
    jc 9f
    call kbd_send
9:  pop ax
    ret

.globl int09
int09:
    pusha
    push ds
    push es
    push 0x40
    pop ds
    cld
    in al, KBC_STATUS               /* a byte of the keyboard? */
    and al, 0x21
    cmp al, 1
    jne key_done
    in al, KBC_DATA
    mov ah, 0x4F                    /* programs may change or take the key */
    stc
    int 0x15
    jnc key_done
    call key
key_done:
    mov al, 0x20
    out PIC1, al
    call set_leds
    pop es
    pop ds
    popa
    iret

key:
    cmp al, 0xE0
    jne 1f
    or byte ptr ds:[BDA_KBD_FLAGS3], LAST_E0
    ret
1:  cmp al, 0xE1
    jne 2f
    or byte ptr ds:[BDA_KBD_FLAGS3], LAST_E1
    ret
2:  cmp al, 0xFA                    /* answers of the keyboard */
    jae 9f
    mov bl, al
    and bl, 0x7F
    test byte ptr ds:[BDA_KBD_FLAGS3], LAST_E1
    jz 3f
    cmp bl, 0x1D                    /* Pause is E1 1D 45 E1 9D C5 */
    je 9f
    and byte ptr ds:[BDA_KBD_FLAGS3], 0xFC
    cmp al, 0x45
    jne 9f
    test byte ptr ds:[BDA_SHIFT + 1], 8
    jnz 9f
    or byte ptr ds:[BDA_SHIFT + 1], 8
    mov al, 0x20
    out PIC1, al
    sti
8:  hlt                             /* until a key ends it */
    test byte ptr ds:[BDA_SHIFT + 1], 8
    jnz 8b
    cli
9:  ret
3:  mov bh, ds:[BDA_KBD_FLAGS3]
    and bh, LAST_E0
    and byte ptr ds:[BDA_KBD_FLAGS3], 0xFC
    movzx si, bl
    cmp si, 0x59
    jae 9b
    mov ah, ds:[BDA_SHIFT]
    /* flag keys */
    cmp bl, 0x2A
    je left_shift
    cmp bl, 0x36
    je right_shift
    cmp bl, 0x1D
    je ctrl
    cmp bl, 0x38
    je alt
    cmp bl, 0x3A
    je caps_lock
    cmp bl, 0x45
    je num_lock
    cmp bl, 0x46
    je scroll_lock
    cmp bl, 0x54
    je system_request
    cmp bl, 0x52
    je insert
pressed:
    test al, 0x80
    jnz no_key
    test byte ptr ds:[BDA_SHIFT + 1], 8     /* any key ends a pause */
    jz 5f
    and byte ptr ds:[BDA_SHIFT + 1], 0xF7
    ret
5:  cmp bl, 0x37
    jne 6f
    test bh, bh
    jz 6f
    test ah, CTRL
    jnz 6f
    test ah, ALT
    jnz 9b
    mov al, 0x20                    /* Print Screen */
    out PIC1, al
    int 5
    ret
6:  cmp bl, 0x53                    /* Ctrl-Alt-Del */
    jne 7f
    mov al, ah
    and al, CTRL | ALT
    cmp al, CTRL | ALT
    jne 7f
    mov word ptr ds:[BDA_RESET_FLAG], 0x1234
    jmp reboot
7:  test bh, bh
    jnz extended
    /* a digit of the keypad with Alt: part of a number */
    test ah, ALT
    jz plain
    movzx di, bl
    sub di, 0x47
    cmp di, 0x53 - 0x47
    ja plain
    mov al, cs:[keypad_digits + di]
    cmp al, 0xFF
    je plain
    mov ah, ds:[BDA_ALT_KEYPAD]
    mov bl, al
    mov al, 10
    mul ah
    add al, bl
    mov ds:[BDA_ALT_KEYPAD], al
    ret

plain:
    shl si, 3                       /* four words for each key */
    test ah, ALT
    jnz with_alt
    test ah, CTRL
    jnz with_ctrl
    mov cl, ah                      /* shifted? */
    and cl, LEFT_SHIFT | RIGHT_SHIFT
    mov ch, cs:[key_table + si]
    cmp ch, 'a'
    jb 1f
    cmp ch, 'z'
    ja 1f
    test ah, CAPS_LOCK
    jz 2f
    jmp 3f
1:  cmp bl, 0x47
    jb 2f
    cmp bl, 0x53
    ja 2f
    test ah, NUM_LOCK
    jz 2f
3:  test cl, cl
    setz cl
2:  test cl, cl
    jz 4f
    add si, 2
    jmp 4f
with_ctrl:
    add si, 4
    jmp 4f
with_alt:
    add si, 6
4:  mov ax, cs:[key_table + si]
    test ax, ax
    jz 9f
    call key_store
9:  ret

extended:
    cmp bl, 0x46                    /* Ctrl-Pause is E0 46 */
    je break
    mov di, offset extended_table
1:  mov cl, cs:[di]
    test cl, cl
    jz 9b
    cmp cl, bl
    je 2f
    add di, 9
    jmp 1b
2:  inc di
    test ah, ALT
    jnz 3f
    test ah, CTRL
    jnz 4f
    test ah, LEFT_SHIFT | RIGHT_SHIFT
    jz 5f
    add di, 2
    jmp 5f
3:  add di, 6
    jmp 5f
4:  add di, 4
5:  mov ax, cs:[di]
    test ax, ax
    jz 9b
    jmp key_store

break:
    mov ax, ds:[BDA_KBD_START]
    mov ds:[BDA_KBD_HEAD], ax
    mov ds:[BDA_KBD_TAIL], ax
    mov byte ptr ds:[BDA_BREAK], 0x80
    xor ax, ax
    call key_store
    int 0x1B
    ret

/* AX to the buffer; carry when it is full. */
.globl key_store
key_store:
    push bx
    push si
    mov bx, ds:[BDA_KBD_TAIL]
    lea si, [bx + 2]
    cmp si, ds:[BDA_KBD_END]
    jb 1f
    mov si, ds:[BDA_KBD_START]
1:  cmp si, ds:[BDA_KBD_HEAD]
    stc
    je 2f
    mov ds:[bx], ax
    mov ds:[BDA_KBD_TAIL], si
    clc
2:  pop si
    pop bx
    ret

/* Flag keys: BL the code, AL with bit 7 when released, BH whether E0 came first. */
left_shift:
    test bh, bh                     /* the false shifts around the grey keys */
    jnz no_key
    mov cx, LEFT_SHIFT
    jmp flag
right_shift:
    test bh, bh
    jnz no_key
    mov cx, RIGHT_SHIFT
flag:
    test al, 0x80
    jnz 1f
    or ds:[BDA_SHIFT], cl
    or ds:[BDA_SHIFT + 1], ch
    ret
1:  not cx
    and ds:[BDA_SHIFT], cl
    and ds:[BDA_SHIFT + 1], ch
no_key:
    ret
ctrl:
    mov dl, RIGHT_CTRL
    mov ch, 1                       /* left Ctrl, at 18h */
    mov cl, CTRL
    jmp two_sided
alt:
    mov dl, RIGHT_ALT
    mov ch, 2
    mov cl, ALT
two_sided:                          /* 17h says either, 18h left, 96h right */
    test al, 0x80
    jnz 2f
    or ds:[BDA_SHIFT], cl
    test bh, bh
    jnz 1f
    or ds:[BDA_SHIFT + 1], ch
    ret
1:  or ds:[BDA_KBD_FLAGS3], dl
    ret
2:  test bh, bh
    jnz 3f
    mov ah, ch
    not ah
    and ds:[BDA_SHIFT + 1], ah
    jmp 4f
3:  mov ah, dl
    not ah
    and ds:[BDA_KBD_FLAGS3], ah
4:  test ds:[BDA_SHIFT + 1], ch
    jnz no_key
    test ds:[BDA_KBD_FLAGS3], dl
    jnz no_key
    mov ah, cl
    not ah
    and ds:[BDA_SHIFT], ah
    cmp cl, ALT
    jne no_key
    xor ax, ax                      /* the number typed on the keypad */
    xchg al, ds:[BDA_ALT_KEYPAD]
    test al, al
    jnz key_store
    ret
caps_lock:
    mov cx, 0x4040
    jmp lock_key
num_lock:
    test ah, CTRL                   /* Ctrl-NumLock pauses on the old keyboards; Pause does here */
    jnz no_key
    mov cx, 0x2020
    jmp lock_key
scroll_lock:
    test bh, bh
    jnz scroll_break
    test ah, CTRL
    jz 1f
    test al, 0x80
    jnz no_key
    jmp break
1:  mov cx, 0x1010
lock_key:                           /* toggled when pressed, held flag at 18h so that repeats do not toggle */
    test al, 0x80
    jnz 2f
    test ds:[BDA_SHIFT + 1], ch
    jnz no_key
    or ds:[BDA_SHIFT + 1], ch
    xor ds:[BDA_SHIFT], cl
    ret
2:  not ch
    and ds:[BDA_SHIFT + 1], ch
    ret
scroll_break:
    test al, 0x80
    jnz no_key
    jmp break
system_request:
    mov ah, 0x85                    /* AL 0 pressed, 1 released */
    shr al, 7
    push ax
    mov al, 0x20
    out PIC1, al
    pop ax
    sti
    int 0x15
    cli
    ret
insert:
    test ah, ALT
    jnz pressed
    test bh, bh
    jnz 1f
    test ah, NUM_LOCK               /* a zero then, unless shifted */
    setnz cl
    test ah, LEFT_SHIFT | RIGHT_SHIFT
    setnz ch
    cmp cl, ch
    jne pressed
1:  test al, 0x80
    jnz 2f
    test byte ptr ds:[BDA_SHIFT + 1], 0x80
    jnz pressed
    or byte ptr ds:[BDA_SHIFT + 1], 0x80
    xor byte ptr ds:[BDA_SHIFT], INSERT
    jmp pressed
2:  and byte ptr ds:[BDA_SHIFT + 1], 0x7F
    jmp pressed

.globl reboot
reboot:
    cli
    mov al, 0xFE                    /* the controller pulls the reset line */
    out KBC_STATUS, al
    mov al, 6
    mov dx, 0xCF9
    out dx, al
1:  hlt
    jmp 1b

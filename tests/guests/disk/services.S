/* A boot disk that calls every BIOS service, with good and bad arguments, and prints what comes back on COM1: registers,
 * carry and zero flag, bytes of the BIOS data area that changed, and what was written to a buffer.
 *
 * The lines are for comparing one BIOS with another, so nothing that depends on time is printed. */
.include "pc.inc"
.code16
.set BUFFER_SEG, 0x2000             /* arguments at 0, results at 100h */
.set BUFFER_LEN, 0x800
.set PATTERN, 0xCC
/* For len: the buffer stays as the call before has left it. */
.set KEEP, 0xFFFF
.set UPPER, 0xA5A50000              /* upper halves, which services leave alone */

.section .boot, "ax"
    BOOT_TRACK

/* A call: its name, the interrupt, AX, BX, CX, DX, SI, DI, BP; ES and DS are the buffer's. \shown says what is printed: bits
 * 0 to 6 for AX, BX, CX, DX, SI, DI, ES, 7 the flags. \dump bytes of the buffer at \at, \preset bytes copied to its start. */
.macro SERVICE name, int, ax=0, bx=0, cx=0, dx=0, si=0, di=0x100, bp=0, shown=0xFF, dump=0, at=0x100, preset=0, len=0
    .section .rodata
77: .asciz "\name"
    .section .calls, "a"
    .word 77b, \int, \ax, \bx, \cx, \dx, \si, \di, \bp, \shown, \dump, \at, \preset, \len
.endm
.set CALL_LEN, 28

.section .text
main:
    UART_INIT
    mov si, offset greeting
    call puts
    mov word ptr [now], offset calls
next:
    mov bx, [now]
    cmp bx, offset calls_end
    jae done
    call one
    add word ptr [now], CALL_LEN
    jmp next
done:
    mov si, offset farewell
    call puts
1:  mov dx, COM1 + UART_LSR
    in al, dx
    test al, 0x40
    jz 1b
    OUTB EXIT_PORT, 0
2:  hlt
    jmp 2b

one:
    mov si, [bx]
    call puts
    mov ax, BUFFER_SEG
    mov es, ax
    xor di, di
    cmp word ptr [bx + 26], KEEP
    je 1f
    mov al, PATTERN
    mov cx, BUFFER_LEN
    rep stosb
    mov si, [bx + 24]
    mov cx, [bx + 26]
    xor di, di
    rep movsb
1:  push ds                         /* the data area as it was */
    push es
    xor ax, ax
    mov es, ax
    mov di, offset data_area
    mov ax, 0x40
    mov ds, ax
    xor si, si
    mov cx, 128
    rep movsw
    pop es
    pop ds
    mov al, [bx + 2]
    mov [interrupt + 1], al
    mov eax, UPPER
    mov ax, [bx + 8]
    mov ecx, eax
    mov ax, [bx + 10]
    mov edx, eax
    mov ax, [bx + 12]
    mov esi, eax
    mov ax, [bx + 14]
    mov edi, eax
    mov ax, [bx + 16]
    mov ebp, eax
    mov ax, [bx + 4]
    push ax
    mov ax, [bx + 6]
    mov ebx, eax
    pop ax
    push es
    pop ds
    stc                             /* a service that leaves the flags is seen */
interrupt:
    int 0
    push ds
    push 0
    pop ds
    pop word ptr [result_ds]
    mov [result], eax
    mov [result + 4], ebx
    mov [result + 8], ecx
    mov [result + 12], edx
    mov [result + 16], esi
    mov [result + 20], edi
    mov [result + 24], es
    mov [result + 28], ebp
    pushf
    pop word ptr [result_flags]
    cld
    sti
    xor ax, ax
    mov es, ax
    mov bx, [now]
    mov si, offset register_names
    mov di, offset result
    mov cl, [bx + 18]
1:  mov al, ' '
    call putc
    shr cl, 1
    jnc 2f
    mov al, [si]
    call putc
    mov al, [si + 1]
    call putc
    mov al, '='
    call putc
    mov ax, [di]
    call hex4
    cmp di, offset result + 24
    jae 2f
    cmp word ptr [di + 2], UPPER >> 16
    je 2f
    mov al, '!'                     /* the upper half is another */
    call putc
    mov ax, [di + 2]
    call hex4
2:  add si, 2
    add di, 4
    cmp di, offset result + 28
    jb 1b
    shr cl, 1
    jnc 3f
    mov al, ' '
    call putc
    mov al, 'C'
    test byte ptr [result_flags], 1
    jnz 21f
    mov al, '-'
21: call putc
    mov al, 'Z'
    test byte ptr [result_flags], 0x40
    jnz 22f
    mov al, '-'
22: call putc
3:  cmp word ptr [result_ds], BUFFER_SEG
    je 31f
    mov si, offset ds_changed
    call puts
31: mov ax, BUFFER_SEG              /* what the data area has now */
    xor di, di
4:  cmp di, 0x6C                    /* not the clock, not the diskette motors' time */
    je 5f
    cmp di, 0x40
    je 6f
    push ds
    mov ax, 0x40
    mov ds, ax
    mov al, [di]
    pop ds
    cmp al, [data_area + di]
    je 6f
    push ax
    mov al, ' '
    call putc
    mov al, '@'
    call putc
    mov ax, di
    call hex2
    mov al, ':'
    call putc
    pop ax
    call hex2
    jmp 6f
5:  add di, 4
6:  inc di
    cmp di, 256
    jb 4b
    mov cx, [bx + 20]
    test cx, cx
    jz 9f
    mov si, offset buffer_text
    call puts
    mov si, [bx + 22]
    cmp byte ptr [bx + 21], 0x80    /* 80xxh: a sum of so many bytes */
    jae 8f
7:  push ds
    mov ax, BUFFER_SEG
    mov ds, ax
    lodsb
    pop ds
    call hex2
    loop 7b
    jmp 9f
8:  and ch, 0x7F
    xor dx, dx
81: push ds
    mov ax, BUFFER_SEG
    mov ds, ax
    lodsb
    pop ds
    rol dx, 1
    mov ah, 0
    add dx, ax
    loop 81b
    mov ax, dx
    call hex4
9:  mov al, 13
    jmp putc

.include "text16.inc"

.section .rodata
greeting:       .asciz "services: start\r"
farewell:       .asciz "services: done\r"
ds_changed:     .asciz " DS!"
buffer_text:    .asciz " ="
register_names: .ascii "axbxcxdxsidies"

.section .scratch, "aw", @nobits
now:            .skip 2
result:         .skip 32
result_ds:      .skip 2
result_flags:   .skip 2
data_area:      .skip 256

.section .calls, "a"
calls:
.include "services_video.inc"
.include "services_disk.inc"
.include "services_system.inc"

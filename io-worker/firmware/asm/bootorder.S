/* fw_cfg's "bootorder": a line for each device, by its Open Firmware path. Known are what INT 19h boots:
 * .../ide@1,1/drive@CHANNEL/disk@UNIT and .../floppy@UNIT. Others are passed over. */
.include "defs.inc"
.set LENGTH, 512
.set DISKETTE, 1
.set DISK, 2
.set CD, 3

.code32
.section .text32, "ax"
.globl boot_order_read
boot_order_read:
    mov esi, offset name_bootorder
    call fw_cfg_file
    jc 9f
    cmp ecx, LENGTH - 1             /* the last byte stays zero */
    jbe 1f
    mov ecx, LENGTH - 1
1:  mov edi, offset bootorder + 0xF0000
    call fw_cfg_read
9:  ret
.section .rodata32, "a"
name_bootorder: .asciz "bootorder"

.code16
.section .text16, "ax"
/* Codes of the devices named, to FS:DI on and at most CX of them. DS is the data area. */
.globl boot_order_named
boot_order_named:
    mov si, offset bootorder
1:  mov al, cs:[si]
    test al, al
    jz 9f
    mov bx, offset drive_word
    call starts
    je 2f
    mov bx, offset floppy_word
    call starts
    je 4f
    inc si
    jmp 1b
2:  mov al, cs:[si]                 /* channel */
    sub al, '0'
    cmp al, 1
    ja 1b
    add al, al
    mov dl, al
    inc si
    mov bx, offset disk_word
    call starts
    jne 1b
    mov al, cs:[si]
    sub al, '0'
    cmp al, 1
    ja 1b
    add dl, al                      /* the drive's entry: which disk or CD is it? */
    xor bx, bx
3:  mov al, bl
    shl al, 4
    or al, DISK
    cmp fs:[EBDA_HD_MAP + bx], dl
    je 5f
    inc al
    cmp fs:[EBDA_CD_MAP + bx], dl
    je 5f
    inc bx
    cmp bl, 4
    jb 3b
    jmp 1b
4:  mov al, cs:[si]
    sub al, '0'
    cmp al, fs:[EBDA_FD_COUNT]
    jae 1b
    shl al, 4
    or al, DISKETTE
5:  mov fs:[di], al
    inc di
    dec cx
    jnz 1b
9:  ret

/* Does CS:SI start with the word at CS:BX? Zero flag and SI behind it. */
starts:
    push si
    push ax
1:  mov al, cs:[bx]
    test al, al
    jz 2f
    cmp al, cs:[si]
    jne 3f
    inc bx
    inc si
    jmp 1b
2:  pop ax
    add sp, 2
    cmp al, al
    ret
3:  pop ax
    pop si
    ret

.section .rodata16, "a"
drive_word:  .asciz "drive@"
disk_word:   .asciz "/disk@"
floppy_word: .asciz "floppy@"
.section .data16, "aw"
bootorder:   .fill LENGTH, 1, 0

/* INT 13h: who is asked, hard disks, and the extensions (EDD 3.0) that disks and CD-ROMs share. */
.include "defs.inc"
.code16
.section .text16, "ax"

.globl int13, int13_diskette
int13_diskette:                     /* the entry for diskettes alone, INT 40h */
    ENTER
    sti
    jmp real_diskette
int13:
    ENTER
    sti
    mov dl, [bp + F_DL]
    cmp byte ptr fs:[EBDA_EMU + EMU_ACTIVE], 0
    je 2f
    cmp byte ptr [bp + F_AH], 0x4B
    je cd_drive
    mov dh, fs:[EBDA_EMU + EMU_DRIVE]
    cmp dl, dh
    je emulated
    mov al, dl                      /* the drive that stood in its place, and those behind, are one further */
    xor al, dh
    js 2f
    cmp dl, 0xE0
    jae 2f
    dec dl
2:  cmp dl, 0x80
    jb real_diskette
    cmp dl, 0xE0
    jae cd_drive
    movzx bx, dl
    sub bx, 0x80
    cmp bx, 4
    jae no_drive
    mov al, fs:[EBDA_HD_MAP + bx]
    cmp al, 0xFF
    je no_drive
    call drive_entry
    movzx bx, byte ptr [bp + F_AH]
    cmp bl, 0x15
    jbe 3f
    cmp bl, 0x41
    jb bad_function
    cmp bl, 0x4E
    ja bad_function
    sub bl, 0x41 - 0x16
3:  shl bx, 1
    jmp cs:[functions13 + bx]

no_drive:
    mov dl, [bp + F_DL]
    cmp byte ptr [bp + F_AH], 0x15
    jne bad_function
    mov byte ptr [bp + F_AH], 0
    CLEAR_CARRY
    LEAVE
.globl bad_function, fail13, good13
bad_function:
    mov ah, E_PARAMETER
/* Ends with status AH, which the data area keeps. */
fail13:
    mov [bp + F_AH], ah
    SET_CARRY
    jmp 1f
good13:
    xor ah, ah
    mov [bp + F_AH], ah
    CLEAR_CARRY
1:  mov bx, BDA_HD_STATUS
    cmp byte ptr [bp + F_DL], 0x80
    jae 2f
    mov bx, BDA_FD_STATUS
2:  mov [bx], ah
    LEAVE

emulated:
    mov al, fs:[EBDA_EMU + EMU_CD]
    call drive_entry
    movzx bx, byte ptr [bp + F_AH]
    cmp bl, 0x15
    ja bad_function
    shl bx, 1
    jmp cs:[functions_emulated + bx]

cd_drive:
    cmp byte ptr [bp + F_AH], 0x4B
    je emulation
    movzx bx, dl
    sub bx, 0xE0
    cmp bx, 4
    jae no_drive
    mov al, fs:[EBDA_CD_MAP + bx]
    cmp al, 0xFF
    je no_drive
    call drive_entry
    movzx bx, byte ptr [bp + F_AH]
    cmp bl, 0x15
    jbe 1f
    cmp bl, 0x41
    jb bad_function
    cmp bl, 0x4E
    ja bad_function
    sub bl, 0x41 - 0x16
1:  shl bx, 1
    jmp cs:[functions_cd + bx]

.section .rodata16, "a"
functions13:
    .word disk_reset, disk_status, disk_read, disk_write, disk_verify, disk_format, bad_function, bad_function
    .word disk_parameters, good13, bad_function, bad_function, good13, disk_reset, bad_function, bad_function
    .word disk_ready, good13, bad_function, bad_function, good13, disk_type
    .word edd_check, edd_read, edd_write, edd_verify, disk_lock, disk_eject, edd_seek, edd_parameters
    .word disk_change, bad_function, bad_function, bad_function, bad_function, edd_configure
functions_cd:
    .word good13, disk_status, bad_function, write_protected, bad_function, write_protected, bad_function, bad_function
    .word bad_function, good13, bad_function, bad_function, good13, good13, bad_function, bad_function
    .word cd_is_ready, good13, bad_function, bad_function, good13, cd_type
    .word edd_check, edd_read, write_protected, edd_verify, cd_lock, cd_eject, edd_seek, edd_parameters
    .word cd_change, bad_function, bad_function, bad_function, bad_function, edd_configure
functions_emulated:
    .word good13, disk_status, emulated_read, write_protected, emulated_read, write_protected, bad_function, bad_function
    .word emulated_parameters, good13, bad_function, bad_function, good13, good13, bad_function, bad_function
    .word good13, good13, bad_function, bad_function, good13, emulated_type

.section .text16, "ax"
write_protected:
    mov ah, E_WRITE_PROTECTED
    jmp fail13

disk_status:
    mov bx, BDA_HD_STATUS
    cmp byte ptr [bp + F_DL], 0x80
    jae 1f
    mov bx, BDA_FD_STATUS
1:  mov al, [bx]
    mov byte ptr [bx], 0
    mov [bp + F_AH], al
    CLEAR_CARRY
    test al, al
    jz 2f
    SET_CARRY
2:  LEAVE

disk_reset:
    call ata_wait
    jnc good13
    mov ah, E_TIMEOUT
    jmp fail13

disk_ready:
    mov dx, fs:[si + D_CONTROL]
    in al, dx
    and al, 0xC0
    cmp al, 0x40
    je good13
    mov ah, E_NOT_READY
    jmp fail13

disk_read:
    mov byte ptr fs:[EBDA_OP], OP_READ
    jmp 1f
disk_write:
    mov byte ptr fs:[EBDA_OP], OP_WRITE
    jmp 1f
disk_verify:
    mov byte ptr fs:[EBDA_OP], OP_VERIFY
1:  movzx ax, byte ptr [bp + F_AL]
    mov fs:[EBDA_LEFT], ax
    mov fs:[EBDA_DONE], ax
    test al, al
    jz bad_function
    cmp al, 128
    ja bad_function
    call chs_to_lba
    jc bad_function
    mov fs:[EBDA_LBA], eax
    mov dword ptr fs:[EBDA_LBA + 4], 0
    mov es, [bp + F_ES]
    mov di, [bp + F_EBX]
    call ata_transfer
    mov al, fs:[EBDA_DONE]
    mov [bp + F_AL], al
    jc fail13
    jmp good13

/* 05h: a track is formatted already; its arguments are checked. */
disk_format:
    movzx ax, byte ptr [bp + F_AL]
    call track_of_caller
    jc bad_function
    jmp good13

/* The caller's cylinder, head, sector as a sector number in EAX; carry when the drive has no such. */
chs_to_lba:
    movzx ebx, byte ptr [bp + F_CL]
    and bl, 0x3F
    jz 9f
    cmp bx, fs:[si + D_SECTORS]
    ja 9f
    dec bx
    push ebx
    call track_of_caller
    pop ebx
    jc 8f
    add eax, ebx
8:  ret
9:  stc
    ret
/* The first sector of the caller's track in EAX. */
track_of_caller:
    movzx eax, byte ptr [bp + F_CH]
    mov ah, [bp + F_CL]
    shr ah, 6
    cmp ax, fs:[si + D_CYLINDERS]
    jae 9b
    movzx ebx, byte ptr [bp + F_DH]
    cmp bx, fs:[si + D_HEADS]
    jae 9b
    movzx ecx, word ptr fs:[si + D_HEADS]
    imul eax, ecx
    add eax, ebx
    movzx ecx, word ptr fs:[si + D_SECTORS]
    imul eax, ecx
    clc
    ret

disk_parameters:
    mov byte ptr [bp + F_AL], 0
    mov ax, fs:[si + D_CYLINDERS]   /* the last cylinder is the diagnostics', as on the AT */
    sub ax, 2
    mov [bp + F_CH], al
    shl ah, 6
    mov al, fs:[si + D_SECTORS]
    and al, 0x3F
    or al, ah
    mov [bp + F_CL], al
    mov al, fs:[si + D_HEADS]
    dec al
    mov [bp + F_DH], al
    mov byte ptr ds:[BDA_HD_STATUS], 0
    mov byte ptr [bp + F_AH], 0
    mov al, ds:[BDA_HD_COUNT]
    mov [bp + F_DL], al
    CLEAR_CARRY
    LEAVE

disk_type:
    movzx eax, word ptr fs:[si + D_CYLINDERS]
    dec eax
    movzx edx, word ptr fs:[si + D_HEADS]
    imul eax, edx
    movzx edx, word ptr fs:[si + D_SECTORS]
    imul eax, edx
    mov [bp + F_EDX], ax
    shr eax, 16
    mov [bp + F_ECX], ax
    mov byte ptr ds:[BDA_HD_STATUS], 0
    mov byte ptr [bp + F_AH], 3
    CLEAR_CARRY
    LEAVE

disk_lock:                          /* fixed: AL is 0 (lock), 1 (unlock), 2 (state) */
    cmp byte ptr [bp + F_AL], 2
    ja bad_function
    mov byte ptr [bp + F_AL], 0
    jmp good13
disk_eject:
    mov ah, E_NOT_REMOVABLE
    jmp fail13
disk_change:
    jmp good13

cd_is_ready:
    call cd_ready
    jc fail13
    jmp good13
cd_type:
    mov byte ptr [bp + F_AH], 2     /* RBIL: changes are told */
    mov byte ptr ds:[BDA_HD_STATUS], 0
    CLEAR_CARRY
    LEAVE
cd_lock:
    mov al, [bp + F_AL]
    cmp al, 2
    ja bad_function
    mov ah, fs:[si + D_LOCKS]
    je 3f
    test al, al
    jnz 1f
    cmp ah, 0xFF
    je 4f
    inc ah
    jmp 2f
1:  test ah, ah
    jz 5f
    dec ah
2:  mov fs:[si + D_LOCKS], ah
3:  test ah, ah
    setnz al
    mov [bp + F_AL], al
    jmp good13
4:  mov byte ptr [bp + F_AL], 1
    mov ah, E_TOO_MANY_LOCKS
    jmp fail13
5:  mov byte ptr [bp + F_AL], 0
    mov ah, E_NOT_LOCKED
    jmp fail13
cd_eject:
    cmp byte ptr fs:[si + D_LOCKS], 0
    mov ah, E_LOCKED
    jne fail13
    mov al, 0x1B                    /* START STOP UNIT: stop and open */
    call packet_clear
    mov byte ptr fs:[EBDA_PACKET + 4], 2
    call packet
    jc fail13
    jmp good13
cd_change:
    mov ah, E_CHANGED
    jmp fail13

/* ---- the extensions ---- */
edd_check:
    cmp word ptr [bp + F_EBX], 0x55AA
    jne bad_function
    mov word ptr [bp + F_EBX], 0xAA55
    mov word ptr [bp + F_ECX], 7    /* packets, locking, parameters */
    mov byte ptr ds:[BDA_HD_STATUS], 0
    mov byte ptr [bp + F_AH], 0x30  /* EDD 3.0 */
    CLEAR_CARRY
    LEAVE

edd_seek:
    call address_packet
    jc fail13
    jmp good13
edd_verify:
    mov al, OP_VERIFY
    jmp 1f
edd_write:
    mov al, OP_WRITE
    jmp 1f
edd_read:
    mov al, OP_READ
1:  mov fs:[EBDA_OP], al
    call address_packet
    jc fail13
    cmp byte ptr fs:[si + D_TYPE], 2
    je 3f
    call ata_transfer
2:  pushf
    push ax
    mov ds, [bp + F_DS]
    mov bx, [bp + F_ESI]
    mov ax, fs:[EBDA_DONE]
    mov [bx + 2], ax
    push 0x40
    pop ds
    pop ax
    popf
    jc fail13
    jmp good13
3:  cmp byte ptr fs:[EBDA_OP], OP_VERIFY
    je good13
    call cd_ready
    jc 4f
    call cd_transfer
    jmp 2b
4:  mov word ptr fs:[EBDA_DONE], 0
    jmp 2b

/* The caller's packet at DS:SI: count, buffer and sector, checked. ES:DI, EBDA_LEFT, EBDA_LBA; carry and AH when wrong. */
address_packet:
    mov ds, [bp + F_DS]
    mov bx, [bp + F_ESI]
    cmp byte ptr [bx], 0x10
    jb 9f
    mov ax, [bx + 2]
    mov fs:[EBDA_LEFT], ax
    mov di, [bx + 4]
    mov es, [bx + 6]
    mov eax, [bx + 8]
    mov edx, [bx + 12]
    mov fs:[EBDA_LBA], eax
    mov fs:[EBDA_LBA + 4], edx
    cmp dword ptr [bx + 4], 0xFFFFFFFF
    jne 1f
    cmp byte ptr [bx], 0x18         /* EDD 3.0: a flat address, of which real mode reaches the first MiB */
    jb 1f
    cmp dword ptr [bx + 20], 0
    jne 8f
    mov ecx, [bx + 16]
    cmp ecx, 0x100000
    jae 8f
    mov di, cx
    and di, 15
    shr ecx, 4
    mov es, cx
1:  push 0x40
    pop ds
    cmp byte ptr fs:[si + D_TYPE], 2
    je 7f                           /* the disc itself knows */
    movzx ecx, word ptr fs:[EBDA_LEFT]
    jecxz 2f
    dec ecx
2:  add eax, ecx
    adc edx, 0
    jc 8f
    cmp edx, fs:[si + D_TOTAL + 4]
    jb 7f
    ja 8f
    cmp eax, fs:[si + D_TOTAL]
    jae 8f
7:  clc
    ret
8:  mov ds, [bp + F_DS]
    mov bx, [bp + F_ESI]
    mov word ptr [bx + 2], 0
9:  push 0x40
    pop ds
    mov ah, E_PARAMETER
    stc
    ret

/* 4Eh: nothing is switched, what is so already is granted. */
edd_configure:
    mov al, [bp + F_AL]
    cmp al, 1                       /* prefetch off, PIO mode 0, default PIO, DMA off */
    je 1f
    cmp al, 3
    je 1f
    cmp al, 4
    je 1f
    cmp al, 6
    jne bad_function
1:  jmp good13

/* 48h: as much of the result as the caller's buffer takes (1Ah, 1Eh, 42h bytes). */
edd_parameters:
    mov es, [bp + F_DS]
    mov di, [bp + F_ESI]
    mov cx, es:[di]
    cmp cx, 0x1A
    jb bad_function
    cmp byte ptr fs:[si + D_TYPE], 2
    je 3f
    mov word ptr es:[di + 2], 2     /* the geometry below is valid */
    mov eax, fs:[si + D_TOTAL + 4]
    mov edx, fs:[si + D_TOTAL]
    mov es:[di + 16], edx
    mov es:[di + 20], eax
    test eax, eax
    jnz 1f
    cmp edx, 63 * 255 * 1024
    jb 2f
1:  mov word ptr es:[di + 2], 0     /* larger than any geometry */
2:  movzx eax, word ptr fs:[si + D_PCYLINDERS]
    mov es:[di + 4], eax
    mov ax, fs:[si + D_PHEADS]
    mov es:[di + 8], eax
    mov ax, fs:[si + D_PSECTORS]
    mov es:[di + 12], eax
    mov word ptr es:[di + 24], 512
    jmp 4f
3:  mov word ptr es:[di + 2], 0x74  /* removable, lockable, no maximum geometry */
    mov dword ptr es:[di + 4], 0xFFFFFFFF
    mov dword ptr es:[di + 8], 0xFFFFFFFF
    mov dword ptr es:[di + 12], 0xFFFFFFFF
    mov dword ptr es:[di + 16], 0xFFFFFFFF
    mov dword ptr es:[di + 20], 0xFFFFFFFF
    mov word ptr es:[di + 24], 2048
4:  cmp cx, 0x1E
    jb 7f
    call parameter_extension
    mov word ptr es:[di + 26], EBDA_DPTE
    mov ax, fs
    mov es:[di + 28], ax
    cmp cx, 0x42
    jb 6f
    mov word ptr es:[di + 30], 0xBEDD       /* device path: key, length */
    mov dword ptr es:[di + 32], 36
    mov dword ptr es:[di + 36], 0x20494350  /* "PCI " */
    mov dword ptr es:[di + 40], 0x20415441  /* "ATA     " */
    mov dword ptr es:[di + 44], 0x20202020
    mov dword ptr es:[di + 48], 0x00FF0101  /* bus 0, slot 1, function 1, channel */
    mov byte ptr es:[di + 48], 0
    mov byte ptr es:[di + 49], 1
    mov byte ptr es:[di + 50], 1
    xor al, al
    cmp word ptr fs:[si + D_PORT], 0x1F0
    je 5f
    inc al
5:  mov es:[di + 51], al
    mov dword ptr es:[di + 52], 0
    mov al, fs:[si + D_DEVICE]
    shr al, 4
    and al, 1
    movzx eax, al
    mov es:[di + 56], eax
    mov dword ptr es:[di + 60], 0
    mov word ptr es:[di + 64], 0
    cmp byte ptr fs:[si + D_TYPE], 2
    jne 55f
    mov dword ptr es:[di + 40], 0x50415441  /* "ATAPI   " */
    mov dword ptr es:[di + 44], 0x20202049
55: push cx
    mov bx, 30
    xor al, al
    mov cx, 35
56: add al, es:[di + bx]
    inc bx
    loop 56b
    neg al
    mov es:[di + 65], al
    pop cx
    mov word ptr es:[di], 0x42
    jmp 8f
6:  mov word ptr es:[di], 0x1E
    jmp 8f
7:  mov word ptr es:[di], 0x1A
8:  jmp good13

/* Where the drive is, for who wants to drive it (EDD table 5), at EBDA_DPTE. */
parameter_extension:
    push cx
    mov ax, fs:[si + D_PORT]
    mov fs:[EBDA_DPTE], ax
    mov ax, fs:[si + D_CONTROL]
    mov fs:[EBDA_DPTE + 2], ax
    mov al, fs:[si + D_DEVICE]
    or al, 0x40
    mov fs:[EBDA_DPTE + 4], al
    mov byte ptr fs:[EBDA_DPTE + 5], 0xCB
    mov al, 14
    cmp word ptr fs:[si + D_PORT], 0x1F0
    je 1f
    inc al
1:  mov fs:[EBDA_DPTE + 6], al
    mov byte ptr fs:[EBDA_DPTE + 7], 1
    mov word ptr fs:[EBDA_DPTE + 8], 0
    mov ax, 0x10                    /* LBA */
    cmp byte ptr fs:[si + D_TYPE], 2
    jne 2f
    or al, 0x60                     /* removable, ATAPI */
    jmp 3f
2:  mov cx, fs:[si + D_SECTORS]
    cmp cx, fs:[si + D_PSECTORS]
    jne 25f
    mov cx, fs:[si + D_HEADS]
    cmp cx, fs:[si + D_PHEADS]
    je 3f
25: or ax, 0x208                    /* translated, the LBA-assisted way */
3:  mov fs:[EBDA_DPTE + 10], ax
    mov word ptr fs:[EBDA_DPTE + 12], 0
    mov byte ptr fs:[EBDA_DPTE + 14], 0x11
    xor al, al
    mov bx, EBDA_DPTE
    mov cx, 15
4:  add al, fs:[bx]
    inc bx
    loop 4b
    neg al
    mov fs:[bx], al
    pop cx
    ret

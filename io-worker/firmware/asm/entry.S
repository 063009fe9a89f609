/* The entry points and tables of the IBM BIOS that programs reach by address, not by vector (IBM PC/AT Technical Reference,
 * BIOS listing; the compatibility map of later references). Each is a jump to the service or the table itself. */
.include "defs.inc"
.code16
.section .fixed, "ax"

/* The section begins at E000h. */
.macro AT address
    .org \address - 0xE000
.endm

bios_name:      .asciz "Quintet BIOS"
                AT 0xE05B
                jmp post
                AT 0xE2C3
                jmp int02
                AT 0xE3FE
                jmp int13
                AT 0xE401           /* hard disk parameters: types are told by INT 41h and 46h instead */
                .fill 16, 1, 0
                AT 0xE6F2
                jmp int19
                AT 0xE6F5
.globl configuration
configuration:                      /* INT 15h AH=C0h */
                .word 8
                .byte 0xFC          /* AT */
                .byte 0             /* submodel */
                .byte 1             /* BIOS revision */
                .byte 0x74          /* second 8259, RTC, INT 15h/4Fh after each key, EBDA */
                .byte 0x40          /* INT 16h AH=09h */
                .byte 0, 0, 0
                AT 0xE729           /* baud rate divisors: 110, 150, 300, 600, 1200, 2400, 4800, 9600 */
.globl baud_divisors
baud_divisors:  .word 1047, 768, 384, 192, 96, 48, 24, 12
                AT 0xE739
                jmp int14
                AT 0xE82E
                jmp int16
                AT 0xE987
                jmp int09
                AT 0xEC59
                jmp int13_diskette
                AT 0xEF57
                jmp int0e
                AT 0xEFC7
.globl diskette_parameters
diskette_parameters:                /* INT 1Eh: 1.44 MB */
                .byte 0xAF          /* step rate, head unload */
                .byte 0x02          /* head load, DMA */
                .byte 0x25          /* ticks until the motor stops */
                .byte 2             /* 512 bytes in a sector */
                .byte 18            /* sectors of a track */
                .byte 0x1B          /* gap */
                .byte 0xFF
                .byte 0x6C          /* gap for formatting */
                .byte 0xF6          /* fill byte */
                .byte 15            /* ms for the head to settle */
                .byte 8             /* motor start in 1/8 s */
                AT 0xEFD2
                jmp int17
                AT 0xF045
                iret
                AT 0xF065
                jmp int10
                AT 0xF0A4           /* video parameters of the CGA and MDA (INT 1Dh): registers of the 6845 */
.globl video_parameters
video_parameters:
                .byte 0x38, 0x28, 0x2D, 0x0A, 0x1F, 0x06, 0x19, 0x1C, 0x02, 0x07, 0x06, 0x07, 0, 0, 0, 0
                .byte 0x71, 0x50, 0x5A, 0x0A, 0x1F, 0x06, 0x19, 0x1C, 0x02, 0x07, 0x06, 0x07, 0, 0, 0, 0
                .byte 0x38, 0x28, 0x2D, 0x0A, 0x7F, 0x06, 0x64, 0x70, 0x02, 0x01, 0x06, 0x07, 0, 0, 0, 0
                .byte 0x61, 0x50, 0x52, 0x0F, 0x19, 0x06, 0x19, 0x19, 0x02, 0x0D, 0x0B, 0x0C, 0, 0, 0, 0
                .word 2048, 4096, 16384, 16384      /* lengths of the screens */
                .byte 40, 40, 80, 80, 40, 40, 80, 80
                .byte 0x2C, 0x28, 0x2D, 0x29, 0x2A, 0x2E, 0x1E, 0x29
                AT 0xF841
                jmp int12
                AT 0xF84D
                jmp int11
                AT 0xF859
                jmp int15
                AT 0xFA6E
.globl font8x8_low
font8x8_low:    .incbin "font8x8.bin", 0, 1024
                AT 0xFE6E
                jmp int1a
                AT 0xFEA5
                jmp int08
                AT 0xFEF3           /* initial vectors 08h to 1Fh */
.globl initial_vectors
initial_vectors:
                .word 0xFEA5, 0xE987, irq_none, irq_none, irq_none, irq_none, 0xEF57, irq_none
                .word 0xF065, 0xF84D, 0xF841, 0xE3FE, 0xE739, 0xF859, 0xE82E, 0xEFD2
                .word int18, 0xE6F2, 0xFE6E, 0xFF53, 0xFF53, 0xF0A4, 0xEFC7, 0
                AT 0xFF53
.globl dummy_iret
dummy_iret:     iret
                AT 0xFF54
                jmp int05
                AT 0xFFF0
.globl reset
reset:          ljmp 0xF000, 0xE05B
                .ascii "11/21/26"
                .byte 0
                .byte 0xFC
                .byte 0

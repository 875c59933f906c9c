#include "textflag.h"

// func vforkSyscall(trap, a1, a2 uintptr) (r1, errno uintptr)
TEXT ·vforkSyscall(SB),NOSPLIT|NOFRAME,$0-40
	MOVQ trap+0(FP), AX
	MOVQ a1+8(FP), DI
	MOVQ a2+16(FP), SI
	XORL DX, DX
	XORL R10, R10
	XORL R8, R8
	XORL R9, R9
	MOVQ 0(SP), R12 // the return address, which the child's calls overwrite
	SYSCALL
	MOVQ R12, 0(SP)
	MOVQ $0, errno+32(FP)
	CMPQ AX, $0xfffffffffffff001
	JCS  made
	NEGQ AX
	MOVQ AX, errno+32(FP)
	XORL AX, AX
made:
	MOVQ AX, r1+24(FP)
	RET

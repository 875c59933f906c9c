#include "textflag.h"

// func vforkSyscall(trap, a1, a2 uintptr) (r1, errno uintptr)
// The return address is in the link register, which is the child's own.
TEXT ·vforkSyscall(SB),NOSPLIT|NOFRAME,$0-40
	MOVD trap+0(FP), R8
	MOVD a1+8(FP), R0
	MOVD a2+16(FP), R1
	MOVD ZR, R2
	MOVD ZR, R3
	MOVD ZR, R4
	MOVD ZR, R5
	SVC
	MOVD ZR, errno+32(FP)
	CMN  $4095, R0
	BCC  made
	NEG  R0, R0
	MOVD R0, errno+32(FP)
	MOVD ZR, R0
made:
	MOVD R0, r1+24(FP)
	RET

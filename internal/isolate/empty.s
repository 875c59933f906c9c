// So that functions without a body may be declared: those of the runtime (fork.go).

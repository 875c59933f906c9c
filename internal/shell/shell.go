// Package shell tells which commands need no shell. Begin at Spare.
package shell

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"tenfold/internal/lazy"
)

// plain is a word that a shell takes as it stands.
var plain = lazy.Regexp(`^[A-Za-z0-9_./:=@%+,-]+$`)

// own are names that a shell does not look up in PATH: words of its language, and what it does itself, in dash or bash.
const own = " . : alias bg bind break builtin caller case cd chdir command compgen complete compopt continue coproc declare dirs disown do done echo elif " +
	"else enable esac eval exec exit export false fc fg fi for function getopts hash help history if in jobs kill let local logout " +
	"mapfile popd printf pushd pwd read readarray readonly return select set shift shopt source suspend test then time times trap true " +
	"type typeset ulimit umask unalias unset until wait while "

// Spare gives what /bin/sh would execute for argv, a command of sh -c, and the environment that it would have, when
// the command is a program with plain words. It is then started without a shell before it, which takes some 0.7 ms and
// a small program's memory, and would stand between the program and who asks for its process. Everything else stays as
// it is: what a shell would expand or do itself, goes up for (..), and what it says of a file that is missing or has no
// interpreter. dir is the process' folder, which relative paths begin at.
func Spare(argv, env []string, dir string) ([]string, []string) {
	if len(argv) != 3 || argv[0] != "/bin/sh" || argv[1] != "-c" || !filepath.IsAbs(dir) {
		return argv, env
	}
	words := strings.FieldsFunc(argv[2], func(r rune) bool { return r == ' ' || r == '\t' })
	if len(words) > 0 && words[0] == "exec" {
		words = words[1:]
	}
	for _, w := range words {
		if !plain.MatchString(w) {
			return argv, env
		}
	}
	if len(words) == 0 || !found(words[0], env, dir) {
		return argv, env
	}
	out := make([]string, 0, len(env)+1)
	for _, kv := range env {
		if !strings.HasPrefix(kv, "PWD=") {
			out = append(out, kv)
		}
	}
	return words, append(out, "PWD="+dir)
}

// found says whether a word is a program that the kernel can execute by itself, and no other than a shell would find.
func found(word string, env []string, dir string) bool {
	if strings.ContainsAny(word, "=%") || strings.HasPrefix(word, "-") || strings.Contains(word, "..") || strings.Contains(own, " "+word+" ") {
		return false
	}
	if strings.Contains(word, "/") {
		if !filepath.IsAbs(word) {
			word = filepath.Join(dir, word)
		}
		return executable(word)
	}
	for _, kv := range env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, d := range filepath.SplitList(list) {
			if !filepath.IsAbs(d) {
				return false
			}
			path := filepath.Join(d, word)
			if _, err := os.Stat(path); err == nil {
				return executable(path)
			}
		}
		return false
	}
	return false
}

// executable says whether the kernel can execute a file by itself, whoever asks.
func executable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Mode()&0o001 == 0 {
		return false
	}
	var b [4]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return false
	}
	return string(b[:]) == "\x7fELF" || string(b[:2]) == "#!"
}

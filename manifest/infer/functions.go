package infer

import (
	"path"
	"strings"

	"tenfold"
)

// handlers are where handlers are usually found, by language: file and function.
var handlers = map[string][][2]string{
	"node":   {{"index", "handler"}, {"handler", "handler"}, {"src/index", "handler"}, {"app", "handler"}},
	"python": {{"lambda_function", "lambda_handler"}, {"handler", "handler"}, {"app", "handler"}, {"main", "handler"}, {"index", "handler"}},
}

// endings are those of a language's files.
var endings = map[string][]string{"node": {".mjs", ".js", ".cjs"}, "python": {".py"}}

// function fills in what a function leaves to detection.
func (p project) function(name tenfold.Name, f *tenfold.Function) error {
	if f.Source.Path == "" {
		if in := path.Join("functions", string(name)); p.dir(in) && !p.dir(string(name)) {
			f.Source.Path = in
		}
	}
	if f.Contained() {
		err := p.contained("functions", name, f.Image, &f.Source, f.Build.Dockerfile, f.Line)
		clearNothing(&f.Build)
		return err
	}
	found, err := p.resolve("functions", name, &f.Source, &f.Build, f.Line)
	if err != nil {
		return err
	}
	dir := f.Source.Path
	if f.Build.Language == "provided" {
		f.Build.Language = ""
	} else if f.Build.Language == "" && f.Command.IsZero() {
		f.Build.Language = p.languageOf(dir, f.Handler)
	}
	clearNothing(&f.Build)
	if !f.Command.IsZero() {
		return nil
	}
	known, called := handlers[f.Build.Language]
	switch {
	case called && f.Handler != "":
	case called:
		for _, h := range known {
			if p.module(dir, f.Build.Language, h[0]) {
				f.Handler = h[0] + "." + h[1]
				return nil
			}
		}
		return unknown("functions", name, f.Line, "which function of "+dir+" is called is not known", "handler: file.function")
	case found.command != "" && !found.frontend:
		f.Command.Shell = "exec " + found.command
	default:
		f.Command.Shell = "exec ./bootstrap"
	}
	return nil
}

// languageOf is the language of a handler's file.
func (p project) languageOf(dir, handler string) string {
	for _, language := range []string{"node", "python"} {
		if i := strings.LastIndexByte(handler, '.'); i > 0 {
			if p.module(dir, language, handler[:i]) {
				return language
			}
			continue
		}
		for _, h := range handlers[language] {
			if p.module(dir, language, h[0]) {
				return language
			}
		}
	}
	return ""
}

// module says whether a file of a language is there.
func (p project) module(dir, language, name string) bool {
	if language == "python" {
		name = strings.ReplaceAll(name, ".", "/")
	}
	for _, end := range endings[language] {
		if p.has(path.Join(dir, name+end)) {
			return true
		}
	}
	return false
}

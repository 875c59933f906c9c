// Package tenfold holds the nouns of Tenfold and the contracts between its parts.
//
// It does nothing itself: no goroutine, no file, no clock, standard library only.
// Read it first; every other package speaks in its words.
//
// # Glossary
//
//   - App: one validated, immutable revision of one environment of an application.
//   - Revision: the number of an App within its environment, counted from 1.
//   - Environment: a place where an app runs: "production", "preview/fix-cart".
//   - Resource: a thing that the user named (a service, a database, a frontend), wanted or observed.
//   - Build: turning sources into something that can run; a Resource of its own, so that all
//     builds and tests pass before anything is switched.
//   - Release: an immutable, content-addressed frontend build.
//   - Task: a running copy of a service.
//   - Deployment: one attempt to replace the tasks of a service.
//   - Binding: a variable that a process is given from another resource or a secret.
//   - Step: one planned change, with the reason that people read.
//   - Tier: the owner of every resource of one or more kinds.
//   - House: all processes of one data directory: warden, keeper, daemon, door and the units.
//   - Unit: a process tree that the keeper holds.
//   - Directory: what the front door knows: hosts, routes, endpoints.
package tenfold

//go:build scenario

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tenfold/internal/measure"
)

// suite finds a conformance suite that stands beside the checkout.
func suite(t *testing.T, parts ...string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join(append([]string{"..", "..", "shared", "suites"}, parts...)...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p); err != nil {
		t.Skip("skipped: suite not present")
	}
	return p
}

func TestConduit(t *testing.T) {
	h := newHouse(t)
	dir, err := filepath.Abs("../examples/conduit")
	if err != nil {
		t.Fatal(err)
	}
	out := h.up(dir)
	t.Log(out)
	eventually(t, "articles are seeded", 30*time.Second, func() bool {
		_, body := h.get("conduit.localhost", "/api/articles?limit=1")
		return strings.Contains(body, `"articlesCount":3000`)
	})
	if code, body := h.get("conduit.localhost", "/some/page"); code != 200 || !strings.Contains(body, `id="root"`) {
		t.Errorf("a page of the single-page app: %d %.80s", code, body)
	}
	if code, body := h.get("conduit.localhost", "/assets/index-missing0.js"); code != 404 || strings.Contains(body, `id="root"`) {
		t.Errorf("a missing asset: %d %.80s", code, body)
	}

	t.Run("collection", func(t *testing.T) {
		collection := suite(t, "realworld", "Conduit.postman_collection.json")
		tools := t.TempDir()
		npm := exec.Command("npm", "install", "--no-audit", "--no-fund", "--prefix", tools, "newman@6")
		if out, err := npm.CombinedOutput(); err != nil {
			t.Fatalf("install newman: %v\n%s", err, out)
		}
		newman := func(user string) {
			t.Helper()
			cmd := exec.Command(filepath.Join(tools, "node_modules/.bin/newman"), "run", collection, "--reporters", "cli", "--color", "off", "--suppress-exit-code",
				"--global-var", "APIURL=http://"+h.addr+"/api", "--global-var", "USERNAME="+user, "--global-var", "EMAIL="+user+"@mail.com", "--global-var", "PASSWORD=password")
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), "AssertionError") || !strings.Contains(string(out), "assertions") {
				t.Errorf("newman: %v\n%s", err, out)
			}
		}
		newman(fmt.Sprintf("u%d", time.Now().UnixNano()))
		// Again while a deployment replaces both tasks.
		text, err := os.ReadFile(filepath.Join(dir, "tenfold.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		next := filepath.Join(tools, "next.yaml")
		if err := os.WriteFile(next, []byte(strings.Replace(string(text), "./api serve", "./api serve again", 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		done := make(chan string, 1)
		go func() {
			out, status := h.runIn(dir, "deploy", "--file", next)
			if status != 0 {
				out = "FAILED " + out
			}
			done <- out
		}()
		newman(fmt.Sprintf("v%d", time.Now().UnixNano()))
		if out := <-done; strings.Contains(out, "FAILED") || !strings.Contains(out, "task 2 of 2 healthy") {
			t.Errorf("the deployment beside it: %s", out)
		}
	})

	t.Run("browser", func(t *testing.T) { browse(t, "http://"+h.addr) })

	t.Run("memory", func(t *testing.T) {
		// 80 MB are for what an app with a database has. Stores and functions have a process each, which only apps
		// that use them start: 40 MB each.
		const house, each = 80 << 20, 40 << 20
		total := int64(0)
		for pid, cmd := range h.mine() {
			_, mode, ok := strings.Cut(cmd, " house ")
			if !ok {
				continue
			}
			mode, _, _ = strings.Cut(mode, " ")
			n, err := measure.PSS(pid)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%-7s %5.1f MB of proportional memory", mode, float64(n)/1e6)
			switch mode {
			case "data", "files", "invoke", "series":
				if n > each {
					t.Errorf("%s: %d bytes, at most %d", mode, n, each)
				}
			default:
				total += n
			}
		}
		if total > house || total == 0 {
			t.Errorf("Tenfold's own processes: %d bytes, at most %d", total, house)
		}
	})
}

// browse signs up, writes, comments, favourites and follows in a real browser.
func browse(t *testing.T, url string) {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("no chromium: scripts/need scenarios")
	}
	tools := t.TempDir()
	if out, err := exec.Command("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", tools, "playwright-core@1").CombinedOutput(); err != nil {
		t.Fatalf("install playwright-core: %v\n%s", err, out)
	}
	script, err := os.ReadFile("../examples/conduit/e2e/journey.mjs")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tools, "journey.mjs"), script, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "journey.mjs")
	cmd.Dir = tools
	cmd.Env = append(os.Environ(), "APP_URL="+url, "CHROMIUM="+chromium)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("journey: %v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
}

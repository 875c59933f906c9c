// A reader's journey in headless Chromium: signs up, writes, comments, favourites, follows, is told of another
// reader's comment, stores a picture, signs out.
// APP_URL says where the app is, CHROMIUM where the browser is; needs playwright-core.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const url = process.env.APP_URL;
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(15_000);
  const complaints = [];
  page.on("pageerror", (e) => complaints.push(e.message));
  const name = "reader" + Date.now();

  await page.goto(url);
  await page.getByRole("article").first().waitFor();
  console.log("home shows articles");

  await page.getByRole("link", { name: "Sign up" }).click();
  await page.getByLabel("Username").fill(name);
  await page.getByLabel("Email").fill(name + "@example.com");
  await page.getByLabel("Password").fill("correct horse");
  await page.getByRole("button", { name: "Sign up" }).click();
  await page.getByRole("link", { name }).waitFor();
  console.log("signed up");

  await page.getByRole("link", { name: "New Article" }).click();
  await page.getByLabel("Article Title").fill("On reading");
  await page.getByLabel("What's this article about?").fill("Why it matters");
  await page.getByLabel("Write your article (in markdown)").fill("# Read\n\nIt is *good* for you.");
  await page.getByLabel("Enter tags").fill("reading books");
  await page.getByRole("button", { name: "Publish Article" }).click();
  await page.getByRole("heading", { name: "On reading" }).waitFor();
  assert.equal(await page.locator(".body em").innerText(), "good");
  console.log("wrote an article");

  await page.getByLabel("Write a comment...").fill("Well said, me.");
  await page.getByRole("button", { name: "Post Comment" }).click();
  await page.getByText("Well said, me.").waitFor();
  console.log("commented");

  await page.goto(url);
  await page.getByRole("tab", { name: "Global Feed" }).click();
  const other = page.getByRole("article").filter({ hasNotText: name }).first();
  const heart = other.getByRole("button");
  const before = Number(await heart.locator(".count").innerText());
  await heart.click();
  await page.waitForFunction(([sel, n]) => [...document.querySelectorAll(sel)].some((e) => Number(e.textContent) === n), [".on .count", before + 1]);
  console.log("favourited");

  await other.getByRole("link").nth(1).click();
  await page.getByRole("button", { name: /^Follow / }).click();
  await page.getByRole("button", { name: /^Unfollow / }).waitFor();
  await page.goto(url);
  await page.getByRole("tab", { name: "Your Feed" }).click();
  await page.getByRole("article").first().waitFor();
  console.log("followed; the feed has articles");

  await page.goto(`${url}/profile/${name}/favorites`);
  await page.getByRole("article").first().waitFor();

  const friend = await (await browser.newContext()).newPage();
  await friend.goto(`${url}/register`);
  await friend.getByLabel("Username").fill("friend" + name);
  await friend.getByLabel("Email").fill("friend" + name + "@example.com");
  await friend.getByLabel("Password").fill("battery staple");
  await friend.getByRole("button", { name: "Sign up" }).click();
  await friend.getByRole("link", { name: "friend" + name }).waitFor();
  await friend.goto(`${url}/profile/${name}`);
  await friend.getByRole("link", { name: "On reading" }).first().click();
  await friend.getByLabel("Write a comment...").fill("I agree.");
  await friend.getByRole("button", { name: "Post Comment" }).click();
  await friend.getByText("I agree.").waitFor();
  const told = page.getByRole("link", { name: `friend${name} commented on your article` });
  for (let tries = 0; !(await told.count()); tries++) {
    assert(tries < 30, "nobody was told of the comment");
    await page.goto(`${url}/inbox`);
    await page.getByRole("heading", { name: "Inbox" }).waitFor();
    await told.waitFor({ timeout: 1000 }).catch(() => {});
  }
  console.log("told of a comment by the function behind the queue");

  await page.goto(`${url}/settings`);
  const dot = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==", "base64");
  await page.getByLabel("Picture from this device").setInputFiles({ name: "me.png", mimeType: "image/png", buffer: dot });
  await page.getByRole("button", { name: "Update Settings" }).click();
  await page.waitForURL(`${url}/profile/${name}`);
  await page.waitForFunction(() => [...document.images].some((i) => i.getAttribute("src").startsWith("/api/pictures/") && i.complete && i.naturalWidth === 1));
  console.log("stored a picture by a presigned URL, and sees it");

  const token = await page.evaluate(() => localStorage.getItem("token"));
  await page.goto(`${url}/settings`);
  await page.getByRole("button", { name: "Or click here to logout." }).click();
  await page.getByRole("link", { name: "Sign in" }).waitFor();
  for (let tries = 0; ; tries++) {
    const { status } = await fetch(`${url}/api/user`, { headers: { Authorization: `Token ${token}` } });
    if (status === 401) break;
    assert(tries < 20, `a token of a session that ended is answered ${status}`);
    await new Promise((done) => setTimeout(done, 100));
  }
  console.log("signed out: the session has ended");
  assert.deepEqual(complaints, []);
  console.log("journey done");
} finally {
  await browser.close();
}

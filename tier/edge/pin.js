// Calls of this page reach the deployment that made it: their header X-Deployment-Id says which. The address
// of this script has its id (d) and the paths that are pinned (p, as many as there are).
(() => {
  const from = new URL(document.currentScript.src);
  const id = from.searchParams.get("d");
  const paths = from.searchParams.getAll("p").map((p) => new RegExp("^" + p.split("/").map((s) =>
    s === "*" ? ".*" : s.startsWith(":") ? "[^/]+" : s.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("/") + "$"));
  if (!id || !paths.length) return;
  const pinned = (url) => {
    try {
      const u = new URL(url, document.baseURI);
      return u.origin === location.origin && paths.some((p) => p.test(u.pathname));
    } catch { return false; }
  };
  const name = "X-Deployment-Id";
  const fetched = window.fetch;
  window.fetch = function (input, init) {
    if (!pinned(input instanceof Request ? input.url : input)) return fetched.apply(this, arguments);
    const headers = new Headers((init && init.headers) || (input instanceof Request ? input.headers : undefined));
    if (!headers.has(name)) headers.set(name, id);
    return fetched.call(this, input, { ...init, headers });
  };
  const { open, send, setRequestHeader } = XMLHttpRequest.prototype;
  const own = new WeakMap();
  XMLHttpRequest.prototype.open = function (method, url) {
    own.set(this, pinned(url));
    return open.apply(this, arguments);
  };
  XMLHttpRequest.prototype.setRequestHeader = function (field) {
    if (String(field).toLowerCase() === name.toLowerCase()) own.set(this, false);
    return setRequestHeader.apply(this, arguments);
  };
  XMLHttpRequest.prototype.send = function () {
    if (own.get(this)) setRequestHeader.call(this, name, id);
    return send.apply(this, arguments);
  };
})();

// The only place that talks to the API. Each call resolves to the answer's JSON or throws an ApiError.

export class ApiError extends Error {
  constructor(status, errors) {
    super(messages(errors).join(", ") || `The server answered ${status}`);
    this.status = status;
    this.errors = errors;
  }
}

// messages flattens {"email": ["is taken"]} into ["email is taken"].
export function messages(errors) {
  return Object.entries(errors ?? {}).flatMap(([field, list]) => [list].flat().map((m) => `${field} ${m}`));
}

export const session = {
  get token() {
    return localStorage.getItem("token");
  },
  set token(value) {
    if (value) localStorage.setItem("token", value);
    else localStorage.removeItem("token");
  },
};

async function call(method, path, body) {
  const headers = {};
  if (session.token) headers.Authorization = `Token ${session.token}`;
  if (body) headers["Content-Type"] = "application/json";
  const res = await fetch(`/api${path}`, { method, headers, body: body && JSON.stringify(body) });
  const answer = await res.json().catch(() => ({}));
  if (!res.ok) throw new ApiError(res.status, typeof answer.errors === "object" ? answer.errors : {});
  return answer;
}

// query writes parameters, leaving out those without a value.
export function query(params) {
  const q = new URLSearchParams(Object.entries(params).filter(([, v]) => v !== undefined && v !== null && v !== "" && v !== 0));
  return q.size ? `?${q}` : "";
}

const at = encodeURIComponent;

export const api = {
  register: (user) => call("POST", "/users", { user }),
  login: (user) => call("POST", "/users/login", { user }),
  logout: () => call("DELETE", "/user/session"),
  me: () => call("GET", "/user"),
  updateUser: (user) => call("PUT", "/user", { user }),
  profile: (name) => call("GET", `/profiles/${at(name)}`),
  follow: (name, on) => call(on ? "POST" : "DELETE", `/profiles/${at(name)}/follow`),
  articles: (params) => call("GET", `/articles${query(params)}`),
  feed: (params) => call("GET", `/articles/feed${query(params)}`),
  article: (slug) => call("GET", `/articles/${at(slug)}`),
  save: (slug, article) => (slug ? call("PUT", `/articles/${at(slug)}`, { article }) : call("POST", "/articles", { article })),
  remove: (slug) => call("DELETE", `/articles/${at(slug)}`),
  favorite: (slug, on) => call(on ? "POST" : "DELETE", `/articles/${at(slug)}/favorite`),
  comments: (slug) => call("GET", `/articles/${at(slug)}/comments`),
  comment: (slug, body) => call("POST", `/articles/${at(slug)}/comments`, { comment: { body } }),
  uncomment: (slug, id) => call("DELETE", `/articles/${at(slug)}/comments/${id}`),
  // upload stores a picture where the API says, and resolves to its address.
  upload: async (file) => {
    const { picture } = await call("POST", "/pictures", { picture: { type: file.type } });
    const res = await fetch(picture.put, { method: "PUT", headers: { "Content-Type": file.type }, body: file });
    if (!res.ok) throw new ApiError(res.status, { picture: [res.status === 413 || res.status === 400 ? "is too large" : "could not be stored"] });
    return picture.image;
  },
  notices: () => call("GET", "/notices"),
  tags: () => call("GET", "/tags"),
};

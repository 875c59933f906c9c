import { useState } from "react";
import { Link, useNavigate } from "react-router";
import { useUser } from "./App.jsx";
import { api } from "./api.js";
import { Errors } from "./parts.jsx";

export function Auth({ isNew }) {
  const { sign } = useUser();
  const navigate = useNavigate();
  const [error, setError] = useState(null);
  const submit = async (data) => {
    try {
      const fields = Object.fromEntries(data);
      sign((await (isNew ? api.register(fields) : api.login(fields))).user);
      navigate("/");
    } catch (e) {
      setError(e);
    }
  };
  return (
    <div className="page narrow">
      <h1>{isNew ? "Sign up" : "Sign in"}</h1>
      <p>{isNew ? <Link to="/login">Have an account?</Link> : <Link to="/register">Need an account?</Link>}</p>
      <Errors error={error} />
      <form action={submit}>
        {isNew && <input name="username" placeholder="Username" aria-label="Username" autoComplete="username" required />}
        <input name="email" type="email" placeholder="Email" aria-label="Email" autoComplete="email" required />
        <input name="password" type="password" placeholder="Password" aria-label="Password" autoComplete={isNew ? "new-password" : "current-password"} required />
        <button className="main">{isNew ? "Sign up" : "Sign in"}</button>
      </form>
    </div>
  );
}

import { useState } from "react";
import { Navigate, useNavigate } from "react-router";
import { useUser } from "./App.jsx";
import { api } from "./api.js";
import { Errors } from "./parts.jsx";

export function Settings() {
  const { user, sign } = useUser();
  const navigate = useNavigate();
  const [error, setError] = useState(null);
  if (!user) return <Navigate to="/login" />;
  const submit = async (data) => {
    const fields = Object.fromEntries(data);
    if (!fields.password) delete fields.password;
    delete fields.picture;
    try {
      const picture = data.get("picture");
      if (picture?.size) fields.image = await api.upload(picture);
      const saved = (await api.updateUser(fields)).user;
      sign(saved);
      navigate(`/profile/${saved.username}`);
    } catch (e) {
      setError(e);
    }
  };
  const leave = () => {
    api.logout().catch(() => {}); // the token is forgotten either way
    sign(null);
    navigate("/");
  };
  return (
    <div className="page narrow">
      <h1>Your Settings</h1>
      <Errors error={error} />
      <form action={submit}>
        <input name="image" placeholder="URL of profile picture" aria-label="URL of profile picture" defaultValue={user.image ?? ""} />
        <input name="picture" type="file" accept="image/jpeg,image/png,image/webp,image/gif" aria-label="Picture from this device" />
        <input name="username" placeholder="Username" aria-label="Username" defaultValue={user.username} required />
        <textarea name="bio" rows="5" placeholder="Short bio about you" aria-label="Short bio about you" defaultValue={user.bio ?? ""} />
        <input name="email" type="email" placeholder="Email" aria-label="Email" defaultValue={user.email} required />
        <input name="password" type="password" placeholder="New Password" aria-label="New Password" autoComplete="new-password" />
        <button className="main">Update Settings</button>
      </form>
      <hr />
      <button onClick={leave}>Or click here to logout.</button>
    </div>
  );
}

// Puts the layers together: stream → store → views.

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Store } from "./store/store";
import { createClient } from "./stream/browser";
import { App } from "./views/App";
import "./views/style.css";

const store = new Store({
  now: () => performance.now(),
  requestFrame: (action) => requestAnimationFrame(action),
  every: (ms, action) => setInterval(action, ms),
});
const client = createClient(store.apply);
const root = document.getElementById("root");
if (root !== null) {
  createRoot(root).render(
    <StrictMode>
      <App store={store} commands={{ retryNow: () => client.retryNow(), goTo: (place) => client.goTo(place) }} />
    </StrictMode>,
  );
}
void client.start();

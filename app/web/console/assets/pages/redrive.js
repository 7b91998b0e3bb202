// Doing something to all that a filter means: looked through first, shown, asked once, and told what came of it.

import { Button, Problem, html, notify, openDialog, useEffect, useRef, useState } from "../ui.js";

/** Of one request: the same again has its effect once. */
export const requestKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/**
 * Opens the dialog.
 *
 * look(signal): what would happen. plan: it, shown; nothing(plan): whether there is nothing to do; action(plan): the word on the button.
 * run(plan, tell, signal): does it; ends early, with what was done, when the signal says so. done(result): what came of it, in one line; more: as markup.
 */
export const openRedrive = (title, props) => openDialog(title, Redrive, props);

function Redrive({ close, lead, look, plan: Plan, nothing, action, run, done, more: More }) {
  const [state, set] = useState({ step: "looks", plan: null, result: null, error: null, told: "" });
  const stop = useRef(null);
  const end = useRef(null);
  useEffect(() => {
    const control = new AbortController();
    stop.current = control;
    look(control.signal).then(
      (plan) => control.signal.aborted || set({ step: "asks", plan }),
      (error) => control.signal.aborted || set({ step: "fails", error }),
    );
    return () => control.abort();
  }, []);
  useEffect(() => {
    if (state.step === "done") end.current?.querySelector("button").focus();
  }, [state.step]);
  const { step, plan, result, error, told } = state;
  const start = async () => {
    const { signal } = stop.current;
    set({ step: "runs", plan, told: "" });
    try {
      const came = await run(plan, (now) => signal.aborted || set({ step: "runs", plan, told: now }), signal);
      if (signal.aborted) notify(`Stopped. ${done(came)}`);
      else set({ step: "done", plan, result: came });
    } catch (failed) {
      if (signal.aborted) notify(failed.message, "bad");
      else set({ step: "asks", plan, error: failed });
    }
  };
  const said = { looks: "Looking what is meant…", runs: told || "Doing it…", done: result && done(result) }[step];
  return html`<div class="stack">
    <div>${lead}</div>
    <div role="status">${said && html`<p><strong>${said}</strong></p>`}</div>
    <${Problem} error=${error} />
    ${plan && step !== "done" && html`<${Plan} plan=${plan} />`}
    ${step === "done" && More && html`<${More} result=${result} />`}
    <div class="actions end" ref=${end}>
      <${Button} run=${() => close(result)}>${{ done: "Close", runs: "Stop" }[step] || "Cancel"}<//>
      ${plan && !nothing(plan) && step !== "done" && html`<${Button} main run=${start} busy=${step === "runs"}>${action(plan)}<//>`}
    </div>
  </div>`;
}

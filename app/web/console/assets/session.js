// Who is looking.

let session = null;

export const currentSession = () => session;

export const setSession = (value) => {
  session = value;
};

/** Whether actions are shown: the API refuses them to a viewer. */
export const mayWrite = () => session?.role === "admin";

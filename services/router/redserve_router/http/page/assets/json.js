// What comes as JSON, from the router or from what stands in front of it.

export const FOREIGN = "A gateway may stand in front of the service: reload the page.";

/** The fields of a body; none when it is no JSON object. */
export async function fieldsOf(response) {
  try {
    return Object(await response.json());
  } catch (error) {
    if (error.name === "TimeoutError") throw error;
    return {};
  }
}

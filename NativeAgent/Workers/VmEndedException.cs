namespace FCtrans.Agent.Workers;

/// <summary>The VM has ended. For whoever asked for its memory that is a refusal as any other; a thread that works for it by itself ends with it.</summary>
internal sealed class VmEndedException() : InvalidOperationException("The VM has ended.");

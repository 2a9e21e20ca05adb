namespace FCtrans.Agent.Transport;

/// <summary>The peer broke the protocol, or said with an Error frame that we did. The connection has ended; trying again does not help.</summary>
internal sealed class ProtocolException(string message) : IOException(message);

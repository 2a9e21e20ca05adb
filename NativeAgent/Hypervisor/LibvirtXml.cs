using System.Xml;
using System.Xml.Linq;

namespace FCtrans.Agent.Hypervisor;

/// <summary>
/// The description of a domain as the main host's libvirt gets it: the source's own, with its addresses, but waiting for a migration
/// (<c>-incoming defer</c>) and with shared memory that is not there yet.
/// </summary>
internal static class LibvirtXml
{
    private const int LongestXml = 8 << 20;

    private static readonly XNamespace s_qemu = "http://libvirt.org/schemas/domain/qemu/1.0";

    /// <exception cref="CommandLineException">It is no description of a domain.</exception>
    public static string ForDestination(string source)
    {
        var domain = Parse(source);
        domain.Attribute("id")?.Remove();
        PrepareMemory(domain);
        var commandLine = domain.Element(s_qemu + "commandline");
        if (commandLine is null)
        {
            domain.SetAttributeValue(XNamespace.Xmlns + "qemu", s_qemu.NamespaceName);
            commandLine = new XElement(s_qemu + "commandline");
            domain.Add(commandLine);
        }

        RemoveIncoming(commandLine);
        commandLine.Add(Argument("-incoming"), Argument("defer"));
        return domain.ToString(SaveOptions.DisableFormatting);
    }

    /// <summary>A domain that came by a split has our arguments in its description: they are not its own.</summary>
    public static string WithoutIncoming(string source)
    {
        var domain = Parse(source);
        if (domain.Element(s_qemu + "commandline") is { } commandLine)
        {
            RemoveIncoming(commandLine);
            if (!commandLine.HasElements)
            {
                commandLine.Remove();
            }
        }

        return domain.ToString(SaveOptions.DisableFormatting);
    }

    /// <summary>Directories in which the domain's devices make sockets: libvirt does not make them.</summary>
    public static IReadOnlyList<string> SocketDirectories(string source) =>
    [
        .. Parse(source).Element("devices")?.Descendants("source")
            .Where(s => (string?)s.Attribute("mode") == "bind").Select(s => Path.GetDirectoryName((string?)s.Attribute("path")))
            .OfType<string>().Where(d => d.StartsWith('/')).Distinct() ?? [],
    ];

    private static XElement Argument(string value) => new(s_qemu + "arg", new XAttribute("value", value));

    private static void RemoveIncoming(XElement commandLine)
    {
        foreach (var argument in commandLine.Elements(s_qemu + "arg").Where(a => (string?)a.Attribute("value") == "-incoming").ToList())
        {
            argument.ElementsAfterSelf().FirstOrDefault()?.Remove();
            argument.Remove();
        }
    }

    /// <summary>Nothing may fill or lock the memory before it comes; binding it to the source's NUMA nodes makes no sense here.</summary>
    private static void PrepareMemory(XElement domain)
    {
        var backing = domain.Element("memoryBacking");
        if (backing is null)
        {
            backing = new XElement("memoryBacking");
            domain.Add(backing);
        }

        foreach (string name in (string[])["allocation", "source", "access", "locked", "hugepages", "discard"])
        {
            backing.Elements(name).Remove();
        }

        backing.Add(
            new XElement("source", new XAttribute("type", "file")),
            new XElement("access", new XAttribute("mode", "shared")));
        domain.Elements("numatune").Remove();
    }

    private static XElement Parse(string source)
    {
        try
        {
            using var reader = XmlReader.Create(
                new StringReader(source),
                new XmlReaderSettings { DtdProcessing = DtdProcessing.Prohibit, XmlResolver = null, MaxCharactersInDocument = LongestXml });
            var root = XDocument.Load(reader).Root;
            return root?.Name == "domain" ? root : throw new CommandLineException("The domain's description is none.", "");
        }
        catch (XmlException e)
        {
            throw new CommandLineException($"The domain's description can't be read: {e.Message}", "");
        }
    }
}

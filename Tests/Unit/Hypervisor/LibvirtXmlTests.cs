using System.Xml.Linq;
using FCtrans.Agent.Hypervisor;
using Xunit;

namespace FCtrans.Unit.Tests.Hypervisor;

/// <summary>What the main host's libvirt gets is the source's domain, waiting for its memory.</summary>
public sealed class LibvirtXmlTests
{
    private const string Source = """
        <domain type='kvm' id='7' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
          <name>vm1</name>
          <memory unit='KiB'>1048576</memory>
          <memoryBacking><source type='memfd'/><access mode='shared'/><allocation mode='immediate'/><nosharepages/></memoryBacking>
          <numatune><memory mode='strict' nodeset='1'/></numatune>
          <devices>
            <serial type='unix'><source mode='bind' path='/run/guests/vm1/serial'/><target port='0'/></serial>
            <serial type='unix'><source mode='connect' path='/run/other/socket'/></serial>
            <disk type='file'><source file='/images/vm1.img'/></disk>
          </devices>
          <qemu:commandline><qemu:arg value='-incoming'/><qemu:arg value='defer'/><qemu:arg value='-foo'/></qemu:commandline>
        </domain>
        """;

    private static readonly XNamespace s_qemu = "http://libvirt.org/schemas/domain/qemu/1.0";

    [Fact]
    public void The_destination_waits_for_a_migration_once()
    {
        var domain = XElement.Parse(LibvirtXml.ForDestination(Source));
        Assert.Equal(["-foo", "-incoming", "defer"], domain.Element(s_qemu + "commandline")!.Elements().Select(a => (string?)a.Attribute("value")));
        Assert.Null(domain.Attribute("id"));
        Assert.Equal("vm1", (string?)domain.Element("name"));
    }

    [Fact]
    public void Its_memory_is_a_shared_file_that_nothing_fills_or_binds()
    {
        var domain = XElement.Parse(LibvirtXml.ForDestination(Source));
        var backing = domain.Element("memoryBacking")!;
        Assert.Equal("file", (string?)backing.Element("source")!.Attribute("type"));
        Assert.Equal("shared", (string?)backing.Element("access")!.Attribute("mode"));
        Assert.Null(backing.Element("allocation"));
        Assert.NotNull(backing.Element("nosharepages"));
        Assert.Null(domain.Element("numatune"));
    }

    [Fact]
    public void A_domain_without_any_of_that_gets_it()
    {
        var domain = XElement.Parse(LibvirtXml.ForDestination("<domain type='qemu'><name>a</name></domain>"));
        Assert.NotNull(domain.Element("memoryBacking"));
        Assert.Equal(2, domain.Element(s_qemu + "commandline")!.Elements().Count());
    }

    [Fact]
    public void What_is_kept_of_a_domain_does_not_wait_for_a_migration()
    {
        Assert.DoesNotContain("incoming", LibvirtXml.WithoutIncoming(Source), StringComparison.Ordinal);
        Assert.Contains("-foo", LibvirtXml.WithoutIncoming(Source), StringComparison.Ordinal);
    }

    [Fact]
    public void Only_sockets_that_the_domain_makes_need_a_directory()
    {
        Assert.Equal(["/run/guests/vm1"], LibvirtXml.SocketDirectories(Source));
    }

    [Theory]
    [InlineData("")]
    [InlineData("<network/>")]
    [InlineData("<domain>")]
    [InlineData("<!DOCTYPE domain [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><domain>&a;</domain>")]
    public void What_is_no_description_of_a_domain_is_refused(string xml)
    {
        Assert.Throws<CommandLineException>(() => LibvirtXml.ForDestination(xml));
    }

    [Fact]
    public void Numbers_and_texts_come_back_from_the_wire_as_they_went()
    {
        var domain = new LibvirtDomain("vm-ä", [.. Enumerable.Range(0, 16).Select(i => (byte)i)], -1);
        byte[] bytes = new XdrWriter().Int(-2).Domain(domain).String("").ToArray();
        Assert.Equal(0, bytes.Length % 4);
        var reader = new XdrReader(bytes);
        Assert.Equal(-2, reader.Int());
        var read = reader.Domain();
        Assert.Equal((domain.Name, domain.Id), (read.Name, read.Id));
        Assert.Equal(domain.Uuid, read.Uuid);
        Assert.Equal("", reader.String());
        Assert.Throws<LibvirtException>(() => new XdrReader([0, 0, 0, 9, 65]).String());
        Assert.Throws<LibvirtException>(() => new XdrReader([255, 255, 255, 255]).String());
        Assert.Throws<LibvirtException>(() => new XdrReader([0, 0]).Int());
    }
}
